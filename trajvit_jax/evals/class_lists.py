"""Lists of classes in the forms in which datasets publish them, and labels that are none."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from trajvit_jax.config import nearest
from trajvit_jax.evals.text_files import read_text
from trajvit_jax.failures import ComesAgain

_SYNSET = re.compile(r"(n\d{8}) (.+)")
_NUMBERED = re.compile(r"\d+ (\S+)")
_ITEM = re.compile(r'(?:item|label)\s*\{\s*name:\s*"([^"]*)"\s*(?:label_)?id:\s*(\d+)')
_FORMS = "write one a line, or name the dataset's own list"


def read_classes(path: str) -> dict[str, str]:
    """Classes of a file, in their order: label -> what it is called in a sentence.

    Forms:
      *.txt    one a line: the label as records have it, or LABEL<TAB>NAME; ImageNet's "n01440764
               tench, Tinca tinca" (label and first name); UCF-101's "1 ApplyEyeMakeup"
      *.json   Something-Something's {"Approaching something": "0", ..}, ImageNet's {"0":
               ["n01440764", "tench"], ..} as Keras has it, or a list of labels
      *.pbtxt  AVA's item { name: "bend/bow (at the waist)" id: 1 }
    Without a name, it is the label with spaces for underscores.

    Raises:
      FileNotFoundError: no such file.
      ValueError: no class, one twice, or a file of another form, or not in UTF-8.
    """
    text = read_text(path, "--classes names a list of the classes")
    readers = {".json": _of_json, ".pbtxt": _of_pbtxt}
    read = readers.get(Path(path).suffix.lower(), _of_lines)
    classes: dict[str, str] = {}
    for label, name in read(path, text):
        if label in classes:
            raise ValueError(f"{path} has the class {label!r} twice")
        classes[label] = name or name_of(label)
    if not classes:
        raise ValueError(f"{path} has no class: {_FORMS}")
    return classes


def _of_lines(path: str, text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        label, _, name = (part.strip() for part in line.partition("\t"))
        if of_imagenet := _SYNSET.fullmatch(line):
            label, name = of_imagenet[1], of_imagenet[2].split(",")[0]
        elif of_ucf101 := _NUMBERED.fullmatch(line):
            label = of_ucf101[1]
        if label:
            yield label, name


def _of_json(path: str, text: str) -> Iterator[tuple[str, str]]:
    try:
        found = json.loads(text)
        pairs = list(_json_pairs(found))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no list of classes ({error}): {_FORMS}") from error
    yield from pairs


def _json_pairs(found: Any) -> Iterator[tuple[str, str]]:
    """Raises ValueError, TypeError, KeyError for other forms."""
    if isinstance(found, list):
        if not all(isinstance(label, str | int) for label in found):
            raise ValueError("its items are not labels")
        yield from ((str(label), "") for label in found)
        return
    if not isinstance(found, dict):
        raise ValueError(f"it is {found!r:.40}")
    if all(isinstance(one, list) for one in found.values()):  # of ImageNet
        for index in range(len(found)):
            synset, name = map(str, found[str(index)])
            yield synset, name.replace("_", " ")
        return
    for label, _ in sorted(found.items(), key=lambda pair: int(pair[1])):
        # Records of Something-Something have the template without its brackets.
        yield label.replace("[", "").replace("]", ""), ""


def _of_pbtxt(path: str, text: str) -> Iterator[tuple[str, str]]:
    found = _ITEM.findall(text)
    if len(found) != len(re.findall(r"\b(?:item|label)\s*\{", text)):
        raise ValueError(f'{path} is no list of items like item {{ name: ".." id: 1 }}')
    yield from ((label, "") for label, _ in sorted(found, key=lambda one: int(one[1])))


def name_of(label: str) -> str:
    """What a label is called in a sentence: 'ApplyEyeMakeup' is 'apply eye makeup'."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", label.replace("_", " "))
    is_camel = spaced != label.replace("_", " ")
    return spaced.lower() if is_camel else spaced


def check_labels(found: Sequence[str], classes: Collection[str], where: str) -> None:
    """Raises ComesAgain for a label that is no class; the message names the nearest."""
    known = set(classes)
    for label in dict.fromkeys(found):
        if label not in known:
            raise ComesAgain(
                f"{where} is labelled {label!r}, which is none of the {len(known)} classes (of "
                "--classes, or else of the split that is learned from); "
                f"{nearest(label, known)}"
            )
