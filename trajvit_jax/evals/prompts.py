"""Sentences around the name of a class, and classes with their names.

Sets of sentences are those that CLIP's authors published with it (Radford et al. 2021) for
Kinetics and UCF-101, their choice of seven for ImageNet, and ActionCLIP's (Wang et al. 2021). The
released program reads a list of the first kind that is not among its files.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from pathlib import Path

from trajvit_jax.config import nearest

_SYNSET = re.compile(r"(n\d{8}) (.+)")
_NUMBERED = re.compile(r"\d+ (\S+)")
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
      ValueError: neither a set nor a file, or a sentence without its {}.
    """
    if name in TEMPLATES:
        return TEMPLATES[name]
    if not Path(name).is_file():
        raise ValueError(
            f"{name!r} is no set of prompts and no file; {nearest(name, TEMPLATES)}; a file has a "
            "sentence a line, with {} for the class"
        )
    lines = [line.strip() for line in Path(name).read_text("utf-8").splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        if line.count("{}") != 1:
            raise ValueError(f"{name}: sentence {number}, {line!r}, needs one {{}} for the class")
    if not lines:
        raise ValueError(f"{name} has no sentence; each is a line with {{}} for the class")
    return tuple(lines)


def read_classes(path: str) -> dict[str, str]:
    """Classes of a file, one a line, in their order: label -> what it is called in a sentence.

    A line is the label as records have it, or LABEL<TAB>NAME; or as datasets have it: ImageNet's
    "n01440764 tench, Tinca tinca" (label and first name), UCF-101's "1 ApplyEyeMakeup". Without a
    name, it is the label with spaces for underscores.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no class, or one twice.
    """
    classes: dict[str, str] = {}
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: --classes names a file, a class a line")
    for line in Path(path).read_text("utf-8").splitlines():
        label, _, name = (part.strip() for part in line.partition("\t"))
        if of_imagenet := _SYNSET.fullmatch(line):
            label, name = of_imagenet[1], of_imagenet[2].split(",")[0]
        elif of_ucf101 := _NUMBERED.fullmatch(line):
            label = of_ucf101[1]
        if not label:
            continue
        if label in classes:
            raise ValueError(f"{path} has the class {label!r} twice")
        classes[label] = name or name_of(label)
    if not classes:
        raise ValueError(f"{path} has no class: write one a line")
    return classes


def name_of(label: str) -> str:
    """What a label is called in a sentence: 'ApplyEyeMakeup' is 'apply eye makeup'."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " "))
    is_camel = spaced != label.replace("_", " ")
    return spaced.lower() if is_camel else spaced


def check_labels(found: Sequence[str], classes: Collection[str], where: str) -> None:
    """Raises ValueError for a label that is no class; the message names the nearest."""
    known = set(classes)
    for label in dict.fromkeys(found):
        if label not in known:
            raise ValueError(
                f"{where} is labelled {label!r}, which is none of the {len(known)} classes; "
                f"{nearest(label, known)}"
            )
