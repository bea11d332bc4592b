"""Scenes whose objects are single places of a text, as a clip's tokens are.

A connector maps an object's token to one embedding. That a language model reads such places is no
matter of course: in words an object takes four. So it also learns from scenes in which an object
is the mean of its words' embeddings, which a linear map of its facts can be. Among them are places
of no object, as many as a clip has tokens beside those of its objects: else the model would never
have read so many, nor over such distances, when it first sees a clip.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32

from benchmarks.parts.videollm_questions import Fact
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.sequences import Sequences
from trajvit_jax.llm.tokenizer import ChatTokenizer

WORDS = 5  # of an object: size, colour, shape, way, and `then` behind a cut
PLACES = 256  # of a row at most
# Places that are no object: TrajViT's clips have 7 trajectories in the mean and 30 at most, ViT3D's
# have 145 tokens always, which take most of a row and so come now and then.
FEW, MANY, OFTEN = 16, 145, 1 / 16


def empty_places(rng: np.random.Generator) -> int:
    """How many places of a scene are no object, as parts of the background are."""
    return MANY if rng.random() < OFTEN else int(rng.integers(FEW + 1))


def places_of(
    known: Sequence[Fact], rng: np.random.Generator, chat: ChatTokenizer
) -> Int32[np.ndarray, "n 5"]:
    """Word ids of a scene's places, in any order; -1 fills up what has fewer."""
    told = [[fact.size, fact.colour, fact.shape, fact.way] for fact in known]
    told = [words + ["then"] * fact.shot for words, fact in zip(told, known, strict=True)]
    told += [[","]] * empty_places(rng)
    made = np.full((len(told), WORDS), -1, np.int32)
    for row, number in enumerate(rng.permutation(len(told)).tolist()):
        ids = chat.text_ids(" ".join(told[number]))
        made[row, : len(ids)] = ids
    return made


def rows_of_places(
    rows: Sequence[Sequence[Int32[np.ndarray, "_ 5"]]], most: int = PLACES
) -> Int32[np.ndarray, "r n 5"]:
    """The places of each row's scenes one after the other; see `Sequences.source`."""
    made = np.full((len(rows), most, WORDS), -1, np.int32)
    for row, own in enumerate(rows):
        if own:
            found = np.concatenate(own)
            made[row, : len(found)] = found
    return made


def in_places(model: Llama, places: Int32[Array, "r n 5"]) -> Float[Array, "r n d"]:
    """The mean of each place's words' embeddings; zeros where there are no words."""
    there, ids = (places >= 0)[..., None], jnp.maximum(places, 0)
    words = model.embed(ids.reshape(len(ids), -1)).reshape(*ids.shape, -1) * there
    return words.sum(-2) / jnp.maximum(there.sum(-2), 1)


def merged(
    model: Llama, sequences: Sequences, tokens: Float[Array, "r n d"]
) -> Float[Array, "r l d"]:
    """What the model reads: words, and each row's own tokens where `source` names them."""
    text, source = model.embed(sequences.ids), sequences.source[..., None]
    own = jnp.take_along_axis(tokens, jnp.maximum(source, 0), axis=1)
    return jnp.where(source >= 0, own, text)
