"""What to read: JSONL manifests, patterns, folders and single files.

A manifest is one JSON object a line:

    {"id": "dog_1", "path": "clips/dog_1.mp4", "start": 2.0, "end": 9.5,
     "captions": ["a dog runs"], "label": "running"}

`id` and `path` are needed; other keys are kept. Paths are relative to the manifest's folder and
may not leave it. A manifest that cannot be understood is an error before any work starts; an
entry whose path may not be opened is kept, with its `problem`, so that the run can name it.
"""

from __future__ import annotations

import dataclasses
import glob
import itertools
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_IMAGES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}
_VIDEOS = {".3gp", ".avi", ".flv", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"}
VIDEO_SUFFIXES = frozenset(_IMAGES | _VIDEOS | {".mts", ".ogv", ".ts", ".webm", ".wmv"})


class ManifestError(ValueError):
    """An input that names no videos, or not clearly; the message says where."""


@dataclasses.dataclass(frozen=True)
class Entry:
    """One video to read.

    Attributes:
      id: unique in the manifest.
      path: file, absolute.
      start: seconds, or None for the first frame.
      end: seconds, or None for the last frame.
      captions: none, one or several.
      label: class name, or None.
      extra: the other keys (JSON values).
      problem: why `path` may not be opened, or None.
    """

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    captions: tuple[str, ...] = ()
    label: str | None = None
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)
    problem: str | None = None


def read_entries(source: str | os.PathLike[str]) -> list[Entry]:
    """Entries of a manifest (`*.jsonl`), or else of a pattern, a folder or a file.

    Raises:
      ManifestError: see `read_manifest` and `entries_from_pattern`.
    """
    if os.fspath(source).endswith(".jsonl"):
        return read_manifest(source)
    return entries_from_pattern(source)


def read_manifest(path: str | os.PathLike[str]) -> list[Entry]:
    """Reads a JSONL manifest.

    Raises:
      ManifestError: it cannot be read, a line is no JSON object, a value has the wrong type
        (both with the line number), two lines have the same id, or there is no entry.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    except OSError as error:
        reason = error.strerror or error
        raise ManifestError(f"manifest {path} cannot be read: {reason}; correct --input") from error
    root = path.parent.resolve()
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = _entry(json.loads(line.decode("utf-8")), root)
        except ValueError as error:  # JSON and UTF-8 errors are ValueErrors
            raise ManifestError(
                f"{path} line {number}: {error}; each line must be a JSON object like "
                '{"id": "a", "path": "a.mp4"}'
            ) from error
        if entry.id in seen:
            raise ManifestError(
                f"{path}: lines {seen[entry.id]} and {number} have the same id {entry.id!r}; "
                "make ids unique"
            )
        seen[entry.id] = number
        entries.append(entry)
    if not entries:
        raise ManifestError(f"{path} has no entry; write one JSON object a line")
    return entries


def entries_from_pattern(pattern: str | os.PathLike[str]) -> list[Entry]:
    """Entries of a file, of every video and image below a folder, or of a glob (`**` too).

    The id is the path without its suffix, relative to the folder or to the part of the
    pattern before the first wildcard.

    Raises:
      ManifestError: nothing matches, or two files have the same id.
    """
    given = Path(pattern).expanduser()
    if given.is_file():
        root, paths = given.parent, [given]
    elif given.is_dir():
        root = given
        paths = [p for p in given.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES]
    else:
        plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), given.parts[:-1]))
        root = Path(*plain)
        paths = list(root.glob(os.fspath(given.relative_to(root))))
    entries: dict[str, Entry] = {}
    for path in sorted(p for p in paths if p.is_file()):
        name = path.relative_to(root).with_suffix("").as_posix()
        if name in entries:
            raise ManifestError(
                f"{entries[name].path} and {path} would both have the id {name!r}; "
                "write a manifest that names them"
            )
        entries[name] = Entry(name, path.absolute())
    if not entries:
        raise ManifestError(f"{pattern!s} matches no video; quote patterns, check the path")
    return list(entries.values())


def _entry(value: Any, root: Path) -> Entry:
    if not isinstance(value, dict):
        raise ValueError(f"is {type(value).__name__}, not an object")
    value = dict(value)
    name: Any = value.pop("id", None)
    path: Any = value.pop("path", None)
    if type(name) is int:
        name = str(name)
    for key, text in {"id": name, "path": path}.items():
        if not isinstance(text, str) or not text:
            raise ValueError(f"{key!r} must be a text that is not empty, is {text!r}")
    captions = value.pop("captions", None) or []
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError("'captions' must be a list of texts")
    label = value.pop("label", None)
    start, end = _seconds(value, "start"), _seconds(value, "end")
    return Entry(
        id=name,
        path=Path(os.path.normpath(root / path)),
        start=start,
        end=end,
        captions=tuple(captions),
        label=None if label is None else str(label),
        extra=value,
        problem=_path_problem(path, root),
    )


def _seconds(value: dict[str, Any], key: str) -> float | None:
    number = value.pop(key, None)
    if number is None:
        return None
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number < 1e9:
        raise ValueError(f"{key!r} must be a number of seconds from 0, is {number!r}")
    return float(number)


def _path_problem(path: str, root: Path) -> str | None:
    if Path(path).is_absolute():
        return f"its path {path!r} is absolute, not below the manifest's folder"
    if "\0" in path:
        return f"its path {path!r} holds a NUL character"
    try:
        inside = (root / path).resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:  # a loop of links
        return f"its path {path!r} cannot be resolved ({error})"
    return None if inside else f"its path {path!r} leaves the manifest's folder {root}"


def fingerprint(entries: Iterable[Entry]) -> list[object]:
    """JSON values that change when an entry or the size of its file does."""
    values: list[object] = []
    for entry in entries:
        size = None
        if entry.problem is None and entry.path.is_file():
            size = entry.path.stat().st_size
        described = {**dataclasses.asdict(entry), "path": entry.path.name, "size": size}
        values.append(described)
    return values
