"""The procedural world as text: scenes in words, and questions whose answers are known.

Nothing is read from pixels here: a scene says itself what is in it. Training and test scenes are
those of the world's splits, which share no content (`tokenization.world.captions.split_of`).
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from tokenization.world.captions import Split, split_of
from tokenization.world.sampling import OPPOSITE, sample_scene
from tokenization.world.scenes import COLOURS, SHAPES, SIZES, ObjectSpec, Scene, WorldSettings
from trajvit_jax.llm.conversation import Conversation, Turn

KINDS = ("colour", "shape", "direction", "order", "count")
OF_AN_OBJECT = KINDS[:3]
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
_HEADINGS = {"left": "left", "right": "right", "top": "up", "bottom": "down"}
_ASKED = {
    "colour": ("what colour is the {shape} ?", "which colour has the {shape} ?"),
    "shape": ("what shape is the {colour} object ?", "which shape is {colour} ?"),
    "direction": ("which way does the {thing} move ?", "where does the {thing} go ?"),
    "order": ("which comes first , the {one} or the {other} ?",),
    "count": ("how many objects are there ?", "count the objects ."),
}


@dataclasses.dataclass(frozen=True)
class Fact:
    """An object of a scene.

    Attributes:
      way: left, right, up, down; spins; or rests.
      shot: 0, or 1 behind a cut.
      named: the caption names it: nothing lies in front of it but another such.
      id: its label in the truth.
    """

    colour: str
    shape: str
    size: str
    way: str
    shot: int
    named: bool
    id: int

    @property
    def thing(self) -> str:
        """What it is called in questions."""
        return f"{self.colour} {self.shape}"


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question about a scene.

    Attributes:
      kind: one of `KINDS`.
      wordings: the question in all of its wordings.
      value: what is asked for: a colour, a shape, a direction, a thing, a number.
      answer: the words of the right answer. It names what was asked about and then the value, as
        whole sentences do ("the circle is red"): so the word before the value says of which object
        it is. Where answers were the value alone, the language model did not learn that.
      text: the wording in which it is asked.
      things: the objects that question and answer together name.
    """

    kind: str
    wordings: tuple[str, ...]
    value: str
    answer: str
    text: str
    things: tuple[str, ...]

    def is_told(self, earlier: Sequence[Asked]) -> bool:
        """Whether who has read earlier questions and answers needs no look at the scene."""
        named = {thing for one in earlier for thing in one.things}
        alike = {thing for one in earlier if one.kind == self.kind for thing in one.things}
        if self.kind == "count":  # no fewer than were named, and in the end so many
            again = any(one.kind == "count" for one in earlier)
            return again or len(named) == NUMBERS.index(self.value)
        # Which comes first is asked of one thing before the cut and one behind it.
        known = named if self.kind in ("colour", "shape") else alike
        return not known.isdisjoint(self.things)


def facts(scene: Scene) -> tuple[Fact, ...]:
    """All objects, in the order of time."""
    found = []
    for number, shot in enumerate(scene.shots):
        for spec in shot.objects:
            named = spec.id in shot.actors
            own = Fact(spec.colour, spec.shape, spec.size, _way(spec), number, named, spec.id)
            found.append(own)
    return tuple(found)


def _way(spec: ObjectSpec) -> str:
    if spec.verb == "enters":
        return OPPOSITE[_HEADINGS[spec.direction]]
    if spec.verb in ("moves", "leaves"):
        return _HEADINGS.get(spec.direction, spec.direction)
    return spec.verb


def in_words(known: Sequence[Fact], rng: np.random.Generator) -> str:
    """A scene as text: its objects in any order within a shot."""
    shots = []
    for _, group in itertools.groupby(known, key=lambda fact: fact.shot):
        own = list(group)
        phrases = []
        for number in rng.permutation(len(own)).tolist():
            fact = own[number]
            phrases.append(f"{fact.size} {fact.colour} {fact.shape} {fact.way}")
        shots.append(" , ".join(phrases))
    return " then ".join(shots) + " ."


def captions(known: Sequence[Fact], split: Split) -> tuple[str, ...]:
    """What a clip's captions say: for training in parts, of each of which only that is told.

    By a whole sentence 99% of a batch's clips are told apart without any look at a shape, and
    beside colours and shapes hardly a direction is needed. Objects are named in the order of the
    alphabet, so that equal contents are equal captions, which match each other in the loss; sizes
    and backgrounds, of which nothing is asked, are not told.
    """
    parts = (
        [fact.colour for fact in known],
        [fact.shape for fact in known],
        [fact.way for fact in known],
        [f"{fact.thing} {fact.way}" for fact in known],
    )
    told = tuple(" and ".join(sorted(part)) for part in parts)
    return told if split == "train" else told[-1:]


def questions(known: Sequence[Fact], about: Literal["all", "named"] = "named") -> list[Asked]:
    """Every question with one right answer, by its first wording.

    Args:
      known: what is in a scene.
      about: all objects, or those that a clip's caption names, which are in sight. Hardly any of
        these rests: who is asked about them alone learns to name what moves.
    """
    found = []
    meant = [fact for fact in known if fact.named or about == "all"]
    colours = collections.Counter(fact.colour for fact in known)
    shapes = collections.Counter(fact.shape for fact in known)
    things = collections.Counter(fact.thing for fact in known)
    for fact in meant:
        if shapes[fact.shape] == 1:
            asked = _ask("colour", fact.colour, fact.thing, shape=fact.shape)
            found.append(_repeating(asked, fact.shape))
        if colours[fact.colour] == 1:
            asked = _ask("shape", fact.shape, fact.thing, colour=fact.colour)
            found.append(_repeating(asked, fact.colour))
            if fact.way in _HEADINGS.values():
                asked = _ask("direction", fact.way, fact.thing, thing=fact.thing)
                found.append(_repeating(asked, fact.thing))
    before = [fact for fact in meant if fact.shot == 0]
    after = [fact for fact in meant if fact.shot == 1]
    for one, other in itertools.product(before, after):
        if things[one.thing] == things[other.thing] == 1:  # else it comes twice
            for first, second in ((one.thing, other.thing), (other.thing, one.thing)):
                found.append(_ask("order", one.thing, first, second, one=first, other=second))
    if len({fact.shot for fact in known}) == 1:
        found.append(_ask("count", NUMBERS[len(known)]))
    return found


def _ask(kind: str, value: str, *things: str, **words: str) -> Asked:
    wordings = tuple(wording.format(**words) for wording in _ASKED[kind])
    return Asked(kind, wordings, value, value, wordings[0], things)


def _repeating(asked: Asked, what: str) -> Asked:
    return dataclasses.replace(asked, answer=f"{what} {asked.value}")


def choose(
    pool: Sequence[Asked], rng: np.random.Generator, most: int, kinds: Sequence[str] = KINDS
) -> list[Asked]:
    """Some of a scene's questions in any wording, each kind as likely.

    None is asked whose answer those before it tell: it would teach to copy, not to look.
    """
    own = [one for one in pool if one.kind in kinds]
    if not own:
        return []
    count = collections.Counter(one.kind for one in own)
    share = np.array([1 / count[one.kind] for one in own])
    places = rng.choice(len(own), len(own), replace=False, p=share / share.sum())
    found: list[Asked] = []
    for one in (own[int(place)] for place in places):
        if len(found) == most or one.is_told(found):
            continue
        text = one.wordings[int(rng.integers(len(one.wordings)))]
        found.append(dataclasses.replace(one, text=text))
    return found


def conversation(
    name: str, before: str, asked: Sequence[Asked], videos: tuple[str, ...] = ()
) -> Conversation:
    """Questions and answers in turn; what is before the first is the scene, or its video."""
    turns = []
    for number, one in enumerate(asked):
        text = f"{before}\n{one.text}" if number == 0 else one.text
        turns += [Turn("user", text), Turn("assistant", one.answer)]
    return Conversation(name, tuple(turns), videos)


def scenes(split: Split, settings: WorldSettings, *, seed: int) -> Iterator[Scene]:
    """Endless scenes of a split, not those of any folder of clips."""
    for number in itertools.count():
        scene = sample_scene(np.random.default_rng([seed, 0x74657874, number]), settings)
        if split_of(scene) == split:
            yield scene


def words() -> list[str]:
    """Every word that scenes, questions and answers are made of."""
    parts = [*COLOURS, *SHAPES, *SIZES, *NUMBERS, "left", "right", "up", "down", "spins", "rests"]
    parts += [",", ".", "then", "user", "assistant", "system"]
    for wordings in _ASKED.values():
        for wording in wordings:
            parts += [word for word in wording.split() if not word.startswith("{")]
    return list(dict.fromkeys(parts))


def balanced(
    asked: Sequence[tuple[str, Asked]], most: int, *, seed: int
) -> list[tuple[str, Asked]]:
    """Of questions about clips (by name) equally many with each value, at most so many of a kind.

    Orders of two things count as two values: the first named, or the second.
    """
    rng = np.random.default_rng(seed)
    groups: dict[str, dict[str, list[tuple[str, Asked]]]] = {}
    for name, one in asked:
        value = one.value
        if one.kind == "order":
            value = "first" if one.text.index(one.value) < len(one.text) // 2 else "second"
        groups.setdefault(one.kind, {}).setdefault(value, []).append((name, one))
    found = []
    for kind in sorted(groups, key=KINDS.index):
        values = groups[kind]
        each = min(most // len(values), min(map(len, values.values())))
        for value in sorted(values):
            own = values[value]
            found += [own[i] for i in sorted(rng.permutation(len(own))[:each].tolist())]
    return found
