"""A tiny Llama that reads scenes as text and answers questions about them: it never sees a clip.

In a part of the scenes each object is a single place (`videollm_places`), as it is in a clip.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers
from flax import nnx
from jaxtyping import Int32
from tqdm import tqdm

from benchmarks.parts.videollm_claim import claim
from benchmarks.parts.videollm_places import (
    FEW,
    MANY,
    OFTEN,
    PLACES,
    WORDS,
    in_places,
    merged,
    places_of,
    rows_of_places,
)
from benchmarks.parts.videollm_questions import (
    KINDS,
    OF_AN_OBJECT,
    Asked,
    Fact,
    choose,
    conversation,
    facts,
    in_words,
    questions,
    scenes,
    words,
)
from tokenization.files import replacing
from tokenization.world.scenes import WorldSettings
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.llama import Llama, positions_in
from trajvit_jax.llm.loss import answer_loss
from trajvit_jax.llm.sequences import Sequences, Spread, rows_of, spread
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.llm.tokenizer import SPECIAL, TOKENIZER, ChatTokenizer
from trajvit_jax.optim import OptimizerSettings, optimizer

_TURNS = 4  # questions about a scene
_SETTINGS = "made_with.json"


@dataclasses.dataclass(frozen=True)
class TextSettings:
    """How the tiny language model is made.

    Attributes:
      scenes: that it reads again and again, each time in other words.
      rows: of a step.
      length: tokens of a row.
      placed: share of the conversations whose scene's objects are single places.
      first: share of the steps in which only colours, shapes and directions are asked for, of
        scenes with several objects: which object is meant is what takes longest to learn.
    """

    width: int = 128
    depth: int = 4
    heads: int = 4
    key_heads: int = 2
    mlp: int = 384
    scenes: int = 20_000
    steps: int = 1200
    rows: int = 10
    length: int = 256
    placed: float = 0.5
    first: float = 0.6
    learning_rate: float = 2e-3
    seed: int = 0


def word_tokenizer() -> tokenizers.Tokenizer:
    """A token a word of the world, and Llama-3's marks."""
    vocabulary = {word: number for number, word in enumerate(["<unknown>", *words()])}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, "<unknown>"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.add_special_tokens(list(SPECIAL))
    return made


def llama_settings(settings: TextSettings) -> LlamaSettings:
    """Of the tiny model: a row for each word, rounded up."""
    count = -(-word_tokenizer().get_vocab_size() // 16) * 16
    return LlamaSettings(
        vocabulary=count,
        width=settings.width,
        depth=settings.depth,
        heads=settings.heads,
        key_heads=settings.key_heads,
        mlp=settings.mlp,
        context=512,
        theta=500_000.0,
        tied=True,
        # By 0.02, which is for large widths, layers begin by saying next to nothing: a model three
        # quarters as wide told 68% of answers' tokens after 880 steps, and by this 79% after 60.
        init_std=0.08,
        dtype="float32",
        unroll=settings.depth,
    )


class Batch(NamedTuple):
    """Rows of conversations, and the word ids of their places; see `videollm_places`."""

    sequences: Sequences
    places: Int32[np.ndarray, "r n 5"]


def talk_about(
    known: Sequence[Fact],
    asked: Sequence[Asked],
    rng: np.random.Generator,
    chat: ChatTokenizer,
    *,
    placed: bool,
) -> tuple[Spread, Int32[np.ndarray, "n 5"]]:
    """A conversation about a scene, and the scene's places, counted from 0.

    In words, or with `placed` in places, where a clip's tokens would stand.
    """
    if not placed:
        text = conversation("text", in_words(known, rng), asked)
        return spread(chat.encode(text), []), np.zeros((0, WORDS), np.int32)
    places = places_of(known, rng, chat)
    text = conversation("text", "<video>", asked, ("scene",))
    return spread(chat.encode(text), [np.arange(len(places), dtype=np.int32)]), places


def batches(
    pool: Sequence[tuple[Fact, ...]],
    chat: ChatTokenizer,
    settings: TextSettings,
    kinds: Sequence[str] = KINDS,
) -> Iterator[Batch]:
    """Endless rows, each as full as whole conversations make it.

    Args:
      pool: scenes.
      chat: the tokenizer.
      settings: of the rows.
      kinds: of the questions.
    """
    talks = _talks(pool, chat, settings, kinds)
    talk, more = next(talks)
    while True:
        rows: list[list[Spread]] = []
        places: list[list[Int32[np.ndarray, "n 5"]]] = []
        for _ in range(settings.rows):
            own: list[Spread] = []
            seen: list[Int32[np.ndarray, "n 5"]] = []
            room, used = settings.length, 0
            while True:
                if len(talk) <= room and used + len(more) <= PLACES:
                    own.append(_behind(talk, used))
                    seen.append(more)
                    room, used = room - len(talk), used + len(more)
                elif own:
                    break  # it begins the next row: those with many places fit nowhere else
                talk, more = next(talks)
            rows.append(own)
            places.append(seen)
        yield Batch(rows_of(rows, settings.length), rows_of_places(places))


def _talks(
    pool: Sequence[tuple[Fact, ...]],
    chat: ChatTokenizer,
    settings: TextSettings,
    kinds: Sequence[str],
) -> Iterator[tuple[Spread, Int32[np.ndarray, "n 5"]]]:
    """Endless conversations about scenes, and the places of each."""
    rng = np.random.default_rng([settings.seed, 1])
    while True:
        known = pool[int(rng.integers(len(pool)))]
        if asked := choose(questions(known, "all"), rng, _TURNS, kinds):
            placed = bool(rng.random() < settings.placed)
            yield talk_about(known, asked, rng, chat, placed=placed)


def _behind(talk: Spread, used: int) -> Spread:
    """The same conversation behind others of its row, which have so many places."""
    return dataclasses.replace(
        talk, source=np.where(talk.source < 0, talk.source, talk.source + used)
    )


def train(folder: Path, world: WorldSettings, settings: TextSettings) -> None:
    """Trains the model, and writes it as Hugging Face keeps a Llama; keeps one that is there.

    Raises:
      ValueError: the one that is there was made with other settings.
    """
    made_with = {
        "text": dataclasses.asdict(settings),
        "world": dataclasses.asdict(world),
        "empty_places": [FEW, MANY, OFTEN],
    }
    if claim(folder / _SETTINGS, made_with) and (folder / "config.json").is_file():
        return
    with replacing(folder / TOKENIZER) as partial:
        word_tokenizer().save(str(partial))
    chat = ChatTokenizer(word_tokenizer(), llama_settings(settings).vocabulary)
    source = scenes("train", world, seed=settings.seed)
    known = [
        facts(next(source))
        for _ in tqdm(range(settings.scenes), "scenes in words", unit="scene", delay=5)
    ]
    model = Llama(llama_settings(settings), rngs=nnx.Rngs(settings.seed))
    schedule = OptimizerSettings(
        learning_rate=settings.learning_rate, beta2=0.98, warmup_fraction=0.05
    )
    tx = optimizer(schedule, settings.steps)
    graph, state = nnx.split(model)
    step, opt_state = _step(graph, tx), tx.init(state)
    several = [own for own in known if len(own) > 1]
    first = round(settings.steps * settings.first)
    read = itertools.chain(
        itertools.islice(batches(several, chat, settings, OF_AN_OBJECT), first),
        batches(known, chat, settings),
    )
    bar = tqdm(total=settings.steps, desc="train tiny llama", unit="step", mininterval=1)
    with bar:
        for number, batch in zip(range(settings.steps), read, strict=False):
            state, opt_state, loss, accuracy = step(state, opt_state, batch)
            bar.update()
            if number % 20 == 0:
                bar.set_postfix(loss=f"{float(loss):.3f}", right=f"{float(accuracy):.1%}")
    hugging_face.save(nnx.merge(graph, state), folder, begin=chat.begin, stop=chat.stop)


def _step(graph: nnx.GraphDef, tx: optax.GradientTransformation):
    def loss(state: nnx.State, batch: Batch):
        model, segments = nnx.merge(graph, state), batch.sequences.segment
        x = merged(model, batch.sequences, in_places(model, batch.places))
        states = model(x, segments, positions_in(segments, segments > 0))
        found = answer_loss(model, states, batch.sequences)
        count = jnp.maximum(found.count, 1)
        return found.nats / count, found.right / count

    @jax.jit
    def step(state: nnx.State, opt_state: optax.OptState, batch: Batch):
        (value, accuracy), gradient = jax.value_and_grad(loss, has_aux=True)(state, batch)
        updates, opt_state = tx.update(gradient, opt_state, state)
        return optax.apply_updates(state, updates), opt_state, value, accuracy

    return step
