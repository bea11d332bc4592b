"""Real captioned clips for training from scratch: where they are, and which are held out.

A folder, named by the environment variable TRAJVIT_TEST_DATA, holds one manifest for each set,
`exercises.jsonl` and `panda.jsonl`, in the form that `tokenization.manifest` reads.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

from tokenization.engines.protocol import Engine
from tokenization.extract import ExtractSettings, Summary, extract
from tokenization.manifest import Entry, read_manifest

VARIABLE = "TRAJVIT_TEST_DATA"

Split = Literal["train", "test"]
SPLITS: tuple[Split, ...] = ("train", "test")


def _exercise(entry: Entry) -> str:
    """The caption without version ("v. 2") and remarks in parentheses ("(male)")."""
    words = re.sub(r"\([^)]*\)|\bv\. ?\d+", " ", entry.captions[0].lower())
    return " ".join(words.split())


def _youtube_video(entry: Entry) -> str:
    """The video that a Panda clip, whose id is VIDEO.NUMBER, was cut from."""
    return entry.id.rpartition(".")[0]


GROUPS: Mapping[str, Callable[[Entry], str]] = {"exercises": _exercise, "panda": _youtube_video}
"""Of each set, what its clips must not have in common across splits."""

_MANIFESTS = " and ".join(f"{name}.jsonl" for name in GROUPS)
MISSING = f"no real clips: set {VARIABLE} to a folder with {_MANIFESTS}"


def folder() -> Path | None:
    """Where the clips are; None where the variable is not set.

    Raises:
      ValueError: the variable names a folder without a manifest.
    """
    root = os.environ.get(VARIABLE)
    if not root:
        return None
    if missing := [name for name in GROUPS if not Path(root, f"{name}.jsonl").is_file()]:
        raise ValueError(
            f"{VARIABLE}={root}: there is no {Path(root, f'{missing[0]}.jsonl')}; set it to a "
            f"folder with {_MANIFESTS}, or unset it"
        )
    return Path(root)


def split_of(group: str) -> Split:
    """The split that owns a group of clips: a quarter of all groups is kept for test.

    It depends on the group's name alone: no number of clips, order or seed brings one into both.
    """
    return "test" if hashlib.sha256(group.encode()).digest()[0] < 64 else "train"


def splits(name: str, entries: Sequence[Entry]) -> dict[Split, list[Entry]]:
    """The clips of a set by split, each in the order of the manifest.

    Args:
      name: of the set, a key of `GROUPS`.
      entries: of its manifest, each with a caption.
    """
    parts: dict[Split, list[Entry]] = {split: [] for split in SPLITS}
    for entry in entries:
        parts[split_of(GROUPS[name](entry))].append(entry)
    return parts


def make_records(
    root: Path,
    output: Path,
    settings: ExtractSettings,
    *,
    most: int | None = None,
    engine: Engine | None = None,
) -> dict[str, dict[str, Summary]]:
    """Extracts what is missing of `output/SET`, splits train and test; returns what is there.

    Args:
      root: folder of the manifests.
      output: folder of all records.
      settings: of the extraction.
      most: clips of each split of a set; None = all.
      engine: what runs the extraction; None = as `extract` has it.
    """
    made: dict[str, dict[str, Summary]] = {}
    for name in GROUPS:
        parts = splits(name, read_manifest(root / f"{name}.jsonl"))
        made[name] = {
            split: extract(parts[split][:most], output / name, settings, split=split, engine=engine)
            for split in SPLITS
        }
    return made
