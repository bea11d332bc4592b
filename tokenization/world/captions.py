"""Scene -> caption, in a small regular English, and the rule that deals captions to splits.

    clip  = shot [", then after a cut " shot]
    shot  = who " over a " kind " background"
    who   = actor | actor ", while " actor | actor (" in front of " | " behind ") thing
    actor = thing ("moves left" | "enters from the top" | "leaves through the right" | "spins")
    thing = "a " size " " colour " " shape

Only actors are named; directions are those seen on the screen.
"""

from __future__ import annotations

import hashlib
from typing import Literal

from tokenization.world.scenes import ObjectSpec, Scene, Shot

Split = Literal["train", "test"]
_PREPOSITIONS = {"moves": "", "enters": "from the ", "leaves": "through the "}


def thing(spec: ObjectSpec) -> str:
    """What an object is: "a large red star"."""
    return f"a {spec.size} {spec.colour} {spec.shape}"


def action(spec: ObjectSpec) -> str:
    """What an object does: "enters from the top"."""
    if spec.verb not in _PREPOSITIONS:
        return spec.verb
    return f"{spec.verb} {_PREPOSITIONS[spec.verb]}{spec.direction}"


def caption(scene: Scene) -> str:
    """One sentence of 8 to 30 lower-case words that says who does what, and where."""
    return ", then after a cut ".join(_describe(shot) for shot in scene.shots)


def _describe(shot: Shot) -> str:
    first, *others = shot.acting()
    text = f"{thing(first)} {action(first)}"
    if others and shot.relation is not None:
        text += f" {shot.relation} {thing(others[0])}"
    elif others:
        text += f", while {thing(others[0])} {action(others[0])}"
    # Every background's name begins with a consonant, hence "a".
    return f"{text} over a {shot.background.kind} background"


def content(scene: Scene) -> str:
    """The caption's content, whatever the order in which it names two actors."""
    shots = []
    for shot in scene.shots:
        actors = [f"{thing(spec)} {action(spec)}" for spec in shot.acting()]
        if shot.relation is None:
            actors.sort()
        shots.append(f"{shot.background.kind} {shot.relation} {' and '.join(actors)}")
    return ", cut, ".join(shots)


def split_of(scene: Scene) -> Split:
    """The split that owns a scene's caption: a quarter of all contents is kept for test.

    It depends on the content alone, so no sizes and no seeds can bring a caption into both.
    """
    digest = hashlib.sha256(content(scene).encode()).digest()
    return "test" if digest[0] < 64 else "train"
