"""What either half can do alone, before a connector joins them.

The language model is asked about held-out scenes in words and in single places, and what the eyes
know of an object is read off its token by a linear map. Neither bounds what both tell together: the
layers behind the connector read more than one token, and not only by a linear map. So either is
told beside the answers, and ends no run; only a language model that hardly answers about single
places does.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int

from benchmarks.parts.videollm_places import in_places, merged, rows_of_places
from benchmarks.parts.videollm_questions import (
    Asked,
    Fact,
    balanced,
    facts,
    questions,
    scenes,
)
from benchmarks.parts.videollm_run import Known, read_clips, see
from benchmarks.parts.videollm_text import talk_about
from tokenization.resizing import resize_labels
from tokenization.world.dataset import load_truth
from tokenization.world.scenes import WorldSettings
from trajvit_jax.confidence import wilson
from trajvit_jax.data.source import Record
from trajvit_jax.evals import loaded
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.eyes import Eyes, EyesSettings
from trajvit_jax.llm.llama import Llama, positions_in
from trajvit_jax.llm.sequences import Sequences, Spread, rows_of
from trajvit_jax.llm.tokenizer import ChatTokenizer
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_tokens.vit3d import tubelet_labels

_ROWS = 64
_AT_ONCE = 8  # batches
PROBED = ("colour", "shape", "direction")
"""What the probe tells of an object."""


class NotLearned(Exception):
    """The language model hardly answers about single places: of clips it would say nothing."""


def in_percent(found: Mapping[str, tuple[int, int]]) -> dict[str, float]:
    """Shares of (right, all)."""
    return {kind: 100 * right / count for kind, (right, count) in found.items()}


def in_line(shares: Mapping[str, float]) -> str:
    """For a person to read."""
    return ", ".join(f"{kind} {share:.1f}%" for kind, share in shares.items())


def by_kind(asked: Sequence[Asked], right: Sequence[bool]) -> dict[str, tuple[int, int]]:
    """(right, all) of each kind."""
    found: dict[str, tuple[int, int]] = {}
    for one, is_right in zip(asked, right, strict=True):
        good, count = found.get(one.kind, (0, 0))
        found[one.kind] = (good + bool(is_right), count + 1)
    return found


def held_out_questions(
    world: WorldSettings,
    *,
    count: int,
    most: int,
    seed: int,
    about: Literal["all", "named"] = "named",
) -> list[tuple[tuple[Fact, ...], Asked]]:
    """Balanced questions about held-out scenes, each with what is in its scene.

    Args:
      world: that scenes are of.
      count: scenes.
      most: questions of a kind.
      seed: of the scenes.
      about: see `questions`.
    """
    source = scenes("test", world, seed=seed)
    known = {str(i): facts(next(source)) for i in range(count)}
    pool = [(name, one) for name, own in known.items() for one in questions(own, about)]
    return [(known[name], one) for name, one in balanced(pool, most, seed=seed)]


def load_text(folder: Path) -> tuple[Llama, ChatTokenizer]:
    """The language model and its tokenizer."""
    settings = hugging_face.read_settings(folder)
    model = hugging_face.load(folder, dtype="float32", unroll=settings.depth)
    return model, ChatTokenizer.load(folder, settings.vocabulary)


def ask_in_words(
    text: Path, world: WorldSettings, *, count: int, most: int, seed: int, placed: bool = False
) -> dict[str, tuple[int, int]]:
    """The language model's right answers about all that is in held-out scenes, by kind.

    Args:
      text: its folder.
      world: as of `held_out_questions`, as the next three.
      count: scenes.
      most: questions of a kind.
      seed: of scenes and their wording.
      placed: objects are single places, see `videollm_places`.
    """
    asked = held_out_questions(world, count=count, most=most, seed=seed, about="all")
    rng = np.random.default_rng([seed, 3])
    model, chat = load_text(text)
    told = [talk_about(known, [one], rng, chat, placed=placed) for known, one in asked]
    places = rows_of_places([[own] for _, own in told], max(len(own) for _, own in told) or 1)
    tokens = np.asarray(in_places(model, jnp.asarray(places)))
    return by_kind([one for _, one in asked], is_answered(model, [t for t, _ in told], tokens))


def is_answered(
    model: Llama, talks: Sequence[Spread], tokens: Float[np.ndarray, "b n d"]
) -> list[bool]:
    """Whether greedy decoding would give the answer of each conversation.

    It does where each token of the right answer is the likeliest after those before it, which one
    pass over the whole conversation tells.

    Args:
      model: the language model.
      talks: each of one question and its right answer.
      tokens: of each, what it reads where `source` names them.
    """
    graph, state = nnx.split(model)
    length = max(map(len, talks))
    check, right = jax.jit(functools.partial(_all_likeliest, graph)), []
    for first in range(0, len(talks), _ROWS):
        own = [[talk] for talk in talks[first : first + _ROWS]]
        fill = _ROWS - len(own)
        rows = rows_of(own + own[:1] * fill, length)
        read = np.pad(tokens[first : first + _ROWS], [(0, fill), (0, 0), (0, 0)])
        right += np.asarray(check(state, rows, read)).tolist()[: len(own)]
    return right


def _all_likeliest(
    graph: nnx.GraphDef, state: nnx.State, rows: Sequences, tokens: jax.Array
) -> jax.Array:
    model, there = nnx.merge(graph, state), rows.segment > 0
    x = merged(model, rows, tokens)
    states = model(x, rows.segment, positions_in(rows.segment, there))
    likeliest = model.logits(states).argmax(-1)
    missed = (likeliest[:, :-1] != rows.ids[:, 1:]) & rows.target[:, 1:]
    return ~missed.any(1)


def probe(
    eyes: Path,
    world: Path,
    train: tuple[Known, Iterable[Record]],
    test: tuple[Known, Iterable[Record]],
    *,
    batch: int = 32,
) -> dict[str, float]:
    """How many held-out objects' tokens a linear map reads right, in percent.

    Args:
      eyes: run or folder of the video encoder.
      world: folder of the clips, with their truth.
      train: what is in clips, and their records: the map is fitted to these.
      test: likewise, held out.
      batch: clips that are seen at once.
    """
    model = loaded.load(eyes).model
    seeing = Eyes.of(model, EyesSettings())
    fitted, held_out = (
        object_states(known, source, seeing, model.settings, world / split / "truth", batch)
        for split, (known, source) in (("train", train), ("test", test))
    )
    return {
        kind: fit_and_score(fitted, held_out, kind)
        for kind in PROBED
        # Of few clips no object may move.
        if all(any(_told(fact)[kind] for _, fact in own) for own in (fitted, held_out))
    }


def below(found: Mapping[str, tuple[int, int]], wanted: float, kinds: Iterable[str]) -> list[str]:
    """The kinds of which fewer are right than `wanted` percent, and not by chance.

    The upper end of the 95% interval is below: 240 questions to a model that truly knows 98% come
    out under 97% now and then.
    """
    return [
        kind
        for kind in kinds
        if 100 * wilson((of := found.get(kind, (0, 1)))[0] / of[1], of[1])[1] < wanted
    ]


def unseen(probed: Mapping[str, float], wanted: Mapping[str, float], redo: str) -> list[str]:
    """What is told where a probe reads less off the eyes' tokens than answers are to reach.

    Args:
      probed: shares in percent, by kind.
      wanted: likewise.
      redo: what to delete once the eyes are to be trained for longer.
    """
    short = [kind for kind, share in wanted.items() if probed.get(kind, 0.0) < share]
    if not short:
        return []
    needed = ", ".join(f"{kind} {wanted[kind]:.0f}%" for kind in short)
    return [
        f"a linear map reads less off an object's token than answers are to reach ({needed}): "
        f"{in_line(probed)}; the layers behind the connector may read more. For longer training "
        f"raise eyes_steps in Settings and delete {redo}: text, clips and records stay"
    ]


Objects = Sequence[tuple[Float[np.ndarray, " d"], Fact]]


def object_states(
    known: Known,
    source: Iterable[Record],
    eyes: Eyes,
    video: ModelSettings,
    truth: Path,
    batch: int,
) -> Objects:
    """The state of each named object's token.

    Args:
      known: what is in the clips.
      source: their records, of all frames that were rendered.
      eyes: that see them.
      video: their settings.
      truth: folder of which pixels are whose.
      batch: clips that are seen at once.
    """
    records, found = iter(source), []
    # Some clips at a time: pixels and states of thousands are gigabytes.
    while clips := read_clips(itertools.islice(records, _AT_ONCE * batch), video):
        seen = see(clips, eyes, batch=batch)
        for name, clip in clips.items():
            slots = clip.labels
            if video.name != "trajvit":
                side = video.image_size
                sizes = {"tubelet": video.vit3d.tubelet, "patch": video.vit3d.patch}
                slots = tubelet_labels(len(clip.video), side, side, **sizes)
            objects = resize_labels(load_truth(truth / name).labels, *slots.shape[1:])
            states = np.asarray(seen[name][0].states)
            for fact in known[name]:
                if fact.named and (slot := slot_of(slots, objects == fact.id)):
                    found.append((states[slot].copy(), fact))
    return found


def slot_of(slots: Int[np.ndarray, "t y x"], mask: Bool[np.ndarray, "t y x"]) -> int:
    """The token that is most an object's, by intersection over union; 0 = none touches it."""
    size = int(slots.max()) + 1
    both, area = (np.bincount(x.reshape(-1), minlength=size) for x in (slots[mask], slots))
    share = both / np.maximum(area + mask.sum() - both, 1)
    return int(share[1:].argmax()) + 1 if share[1:].any() else 0


def fit_and_score(train: Objects, test: Objects, kind: str, ridge: float = 1.0) -> float:
    """Right answers of a linear map (ridge regression on standardized states), in percent."""

    def of(objects: Objects) -> tuple[np.ndarray, np.ndarray]:
        told = [(x, _told(fact)[kind]) for x, fact in objects]
        told = [(x, answer) for x, answer in told if answer]
        return np.stack([x for x, _ in told]).astype(np.float64), np.array([a for _, a in told])

    (x, y), (held, wanted) = of(train), of(test)
    answers, mean, scale = np.unique(y), x.mean(0), x.std(0) + 1e-6
    x, held = (np.c_[(z - mean) / scale, np.ones(len(z))] for z in (x, held))
    kernel = x.T @ x + ridge * np.eye(x.shape[1])
    weights = np.linalg.solve(kernel, x.T @ (y[:, None] == answers))
    return 100 * float((answers[(held @ weights).argmax(1)] == wanted).mean())


def _told(fact: Fact) -> Mapping[str, str]:
    way = fact.way if fact.way in ("left", "right", "up", "down") else ""
    return {"colour": fact.colour, "shape": fact.shape, "direction": way}
