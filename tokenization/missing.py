"""The list of entries that have no file: beside a manifest, and beside the records made of it.

A line is an id, a tab, and the path at which the file should be: several entries may share a file.
"""

from __future__ import annotations

import os
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
    return f"{printable(name)}\t{printable(path)}\n"


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
    parts = (line.strip().partition("\t") for line in lines if line.strip())
    return {name: file or name for name, _, file in parts}


def keep(manifest: str | os.PathLike[str], directory: Path, split: str) -> None:
    """Keeps the list beside a manifest, or that there is none, with the records of a split."""
    kept, found = _kept(directory, split), beside(manifest)
    if Path(manifest).suffix == ".jsonl" and found.is_file():
        write_text(kept, "".join(line_of(*item) for item in read(found).items()))
    else:
        kept.unlink(missing_ok=True)


def read_kept(directory: Path, split: str) -> dict[str, str]:
    """What `keep` kept: paths by id."""
    path = _kept(directory, split)
    return read(path) if path.is_file() else {}


def _kept(directory: Path, split: str) -> Path:
    return directory / SHARD_INFO / f"{split}{SUFFIX}"
