"""Sentences around the name of a class.

Sets of sentences are those that CLIP's authors published with it (Radford et al. 2021) for
Kinetics and UCF-101, their choice of seven for ImageNet, and ActionCLIP's (Wang et al. 2021). The
released program reads a list of the first kind that is not among its files.
"""

from __future__ import annotations

import itertools
from pathlib import Path

from trajvit_jax.config import nearest
from trajvit_jax.evals.text_files import read_text

_KINDS = ("photo", "video", "example", "demonstration")
_DOING = ("", "using ", "doing ", "during ", "performing ", "practicing ")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "none": ("{}",),
    "kinetics": tuple(
        f"a {kind} of {who}{{}}."
        for kind in _KINDS
        for who in ("", *(f"a person {doing}" for doing in _DOING))
    ),
    "ucf101": tuple(
        f"a {kind} of {who} person {doing}{{}}."
        for doing, who, kind in itertools.product(_DOING, ("a", "the"), _KINDS)
    ),
    "imagenet": (
        "itap of a {}.",
        "a bad photo of the {}.",
        "a origami {}.",
        "a photo of the large {}.",
        "a {} in a video game.",
        "art of the {}.",
        "a photo of the small {}.",
    ),
    "actionclip": (
        "a photo of action {}",
        "a picture of action {}",
        "human action of {}",
        "{}, an action",
        "{} this is an action",
        "{}, a video of action",
        "playing action of {}",
        "{}",
        "playing a kind of action, {}",
        "doing a kind of action, {}",
        "look, the human is {}",
        "can you recognize the action of {}?",
        "video classification of {}",
        "a video of {}",
        "the man is {}",
        "the woman is {}",
    ),
}


def read_templates(name: str) -> tuple[str, ...]:
    """A set of sentences, or those of a file: one a line, with {} for the class.

    Raises:
      ValueError: neither a set nor a file, not UTF-8, or a sentence without its {}.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        raise ValueError(
            f"{name!r} is no set of prompts and no file; {nearest(name, TEMPLATES)}; a file has a "
            "sentence a line, with {} for the class"
        )
    text = read_text(name, "--prompts names sentences, one a line, with {} for the class")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if line.count("{}") != 1:
            raise ValueError(f"{name}: sentence {number}, {line!r}, needs one {{}} for the class")
    if not lines:
        raise ValueError(f"{name} has no sentence; each is a line with {{}} for the class")
    return tuple(lines)
