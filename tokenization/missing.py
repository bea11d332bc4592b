"""The list of entries that have no file: beside a manifest, and beside the records made of it.

A line is an id, a tab, and the path at which the file should be: several entries may share a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from tokenization.files import printable, write_text
from tokenization.shard_files import SHARD_INFO

SUFFIX = ".missing.txt"


def beside(manifest: str | os.PathLike[str]) -> Path:
    """Its name: train.jsonl -> train.missing.txt."""
    manifest = Path(manifest)
    return manifest.with_name(manifest.name.removesuffix(".jsonl") + SUFFIX)


def line_of(name: str, path: str | os.PathLike[str]) -> str:
    """Of an entry, by id and path."""
    return "\t".join(_escaped(printable(text)) for text in (name, path)) + "\n"


def read(path: str | os.PathLike[str]) -> dict[str, str]:
    """Paths by id; of a list of paths alone, as earlier versions wrote, they are the ids.

    Raises:
      FileNotFoundError: no such file.
      ValueError: it is not UTF-8.
    """
    form = "it should be the MANIFEST.missing.txt that python -m tokenization.annotations wrote"
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is no file: {form}")
    try:
        lines = Path(path).read_bytes().decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error}): {form}") from error
    parts = (line.strip("\r").partition("\t") for line in lines if line.strip())
    return {_plain(name): _plain(file or name) for name, _, file in parts}


def read_beside(manifest: str | os.PathLike[str]) -> dict[str, str]:
    """What the list beside a manifest says; nothing where there is none."""
    found = beside(manifest)
    return read(found) if Path(manifest).suffix == ".jsonl" and found.is_file() else {}


def keep(listed: Mapping[str, str], directory: Path, split: str) -> None:
    """Keeps a list with the records of a split, in place of an older one.

    Of none, the older stays until videos of the split are removed: a manifest may be given without
    its list, and an entry whose file has come since is not counted.
    """
    if listed:
        write_text(_kept(directory, split), "".join(line_of(*item) for item in listed.items()))


def read_kept(directory: Path, split: str) -> dict[str, str]:
    """What `keep` kept: paths by id."""
    path = _kept(directory, split)
    return read(path) if path.is_file() else {}


def forget(directory: Path, split: str) -> int:
    """Removes what `keep` kept, as it is of another manifest; returns how many entries it had."""
    path = _kept(directory, split)
    entries = len(path.read_bytes().splitlines()) if path.is_file() else 0
    path.unlink(missing_ok=True)
    return entries


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _plain(text: str) -> str:
    meant = {"\\\\": "\\", "\\t": "\t", "\\n": "\n"}
    return re.sub(r"\\[\\tn]", lambda found: meant[found[0]], text)


def _kept(directory: Path, split: str) -> Path:
    return directory / SHARD_INFO / f"{split}{SUFFIX}"
