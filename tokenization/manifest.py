"""What to read: JSONL manifests, patterns, folders and single files.

A manifest is one JSON object a line:

    {"id": "dog_1", "path": "clips/dog_1.mp4", "start": 2.0, "end": 9.5,
     "captions": ["a dog runs"], "label": "running"}

`id` and `path` are needed; other keys are kept, with a warning where they look misspelt. A path is
absolute, or begins with `~/`, or is relative to the manifest's folder; then it may not leave it, so
that the folder can be moved as a whole. A manifest that cannot be understood is an error before any
work starts; an entry whose path may not be opened, or that ends before it starts, is kept, with its
`problem`, so that the run can name it.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import difflib
import glob
import itertools
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from tokenization.files import printable

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})
_VIDEOS = {".3g2", ".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4"}
_MORE_VIDEOS = {".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv"}
VIDEO_SUFFIXES = IMAGE_SUFFIXES | _VIDEOS | _MORE_VIDEOS

_MEANT = ("captions", "label", "start", "end", "boxes")
_OTHERS = {"labels", *_MEANT}  # what other programs of this repository read, as it is spelt

_HALF_CHARACTER = re.compile("[\ud800-\udfff]")  # JSON can hold it, UTF-8 cannot


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
      problem: why there is nothing to read, whatever the file holds, or None.
    """

    id: str
    path: Path
    start: float | None = None
    end: float | None = None
    captions: tuple[str, ...] = ()
    label: str | None = None
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)
    problem: str | None = None


def read_entries(source: str | os.PathLike[str], *, keep_images: bool = False) -> list[Entry]:
    """Entries of a manifest (`*.jsonl`), or else of a pattern, a folder or a file.

    Args:
      source: to be read.
      keep_images: of a folder, also those beside videos.

    Raises:
      ManifestError: see `read_manifest` and `entries_from_pattern`.
    """
    if os.fspath(source).endswith(".jsonl"):
        return read_manifest(source)
    return entries_from_pattern(source, keep_images=keep_images)


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
        text = f"manifest {path} cannot be read: {reason}; correct its path"
        raise ManifestError(text) from error
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
    _warn_of_misspelt_keys(path, entries)
    return entries


def _warn_of_misspelt_keys(path: Path, entries: Sequence[Entry]) -> None:
    """A line for each other key that is all but one that means something, and in its place."""
    given: dict[str, list[Entry]] = {}
    for entry in entries:
        for key in entry.extra:
            given.setdefault(key, []).append(entry)
    for key, those in given.items():
        meant = None if key in _OTHERS else _misspelt(key)
        if meant is None:
            continue
        times = sum(not _has(entry, meant) for entry in those)
        if times:
            logging.warning(
                "%s: %r in %d of %d entries is kept, but means nothing here: did you mean %r?",
                path,
                key,
                times,
                len(entries),
                meant,
            )


def _misspelt(key: str) -> str | None:
    """The key with a meaning that this one nearly is: its letters but for one, in any order."""
    small = key.lower()
    close = difflib.get_close_matches(small, _MEANT, 1, cutoff=0.82)
    letters = collections.Counter(small)
    mixed = [
        known
        for known in _MEANT
        for wanted in [collections.Counter(known)]
        if ((letters - wanted) + (wanted - letters)).total() <= 1
    ]
    return next(iter([*close, *mixed]), None)


def _has(entry: Entry, key: str) -> bool:
    return (entry.extra.get(key) if key == "boxes" else getattr(entry, key)) not in (None, ())


def entries_from_pattern(
    pattern: str | os.PathLike[str], *, keep_images: bool = False
) -> list[Entry]:
    """Entries of a file, of what a folder and those below hold, or of a glob (`**` too).

    Of a folder, its videos, or its images where there is no video, or `keep_images`. No names that
    begin with a dot, unless a pattern's last part does.
    The id is the path without its suffix, relative to the folder or to the part of the
    pattern before the first wildcard. A name that is not UTF-8 is its entry's `problem`.

    Raises:
      ManifestError: nothing is there or matches, it cannot be searched, a file that is no video
        by its name, or two files have the same id.
    """
    given = Path(pattern).expanduser()
    try:
        root, paths = _search(given, keep_images=keep_images)
    except FileNotFoundError as error:
        raise ManifestError(f"{pattern!s} does not exist; correct its path") from error
    except OSError as error:
        reason = error.strerror or error
        raise ManifestError(f"{pattern!s} cannot be read: {reason}; correct its path") from error
    entries: dict[str, Entry] = {}
    for path in sorted(paths):
        plain = path.relative_to(root).with_suffix("").as_posix()
        name = printable(plain)
        if name in entries:
            raise ManifestError(
                f"{entries[name].path} and {path} would both have the id {name!r}; "
                "write a manifest that names them"
            )
        problem = None if name == plain else f"its name {name!r} is not UTF-8"
        entries[name] = Entry(name, path.absolute(), problem=problem)
    if not entries and given.is_dir():
        raise ManifestError(
            f"{pattern!s} holds no video (*.mp4, *.mkv, *.webm ...); correct the folder, or name "
            "files of other suffixes in a manifest"
        )
    if not entries:
        raise ManifestError(f"{pattern!s} matches no video; quote patterns, check the path")
    return list(entries.values())


def _search(given: Path, *, keep_images: bool) -> tuple[Path, list[Path]]:
    """The folder that ids are relative to, and what may be videos below it."""
    if given.is_file():
        if given.suffix.lower() not in VIDEO_SUFFIXES:
            raise ManifestError(
                f"{given} is no video or image by its name; name it in a manifest if it is one. "
                "A manifest itself is named *.jsonl"
            )
        return given.parent, [given]
    if given.is_dir():
        return given, _in_folder(given, keep_images=keep_images)
    if not glob.has_magic(os.fspath(given)):
        given.lstat()  # raises what is wrong: most often, it does not exist
    plain = itertools.takewhile(lambda part: not glob.has_magic(part), given.parts[:-1])
    root = Path(*plain)
    pattern = given.relative_to(root)
    found = [path for path in root.glob(os.fspath(pattern)) if _is_meant(path, root, pattern)]
    return root, list(filter(_may_be_file, found))


def _is_meant(path: Path, root: Path, pattern: Path) -> bool:
    """As in a shell, wildcards match no hidden names, and none in hidden folders."""
    *folders, name = path.relative_to(root).parts
    *among, last = pattern.parts
    return (last.startswith(".") or not name.startswith(".")) and (
        any(part.startswith(".") for part in among)
        or not any(part.startswith(".") for part in folders)
    )


def _in_folder(folder: Path, *, keep_images: bool) -> list[Path]:
    """Its videos: pictures beside them are covers and thumbnails; or else its images."""
    found = [
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and _may_be_file(path)
    ]
    videos = [path for path in found if keep_images or path.suffix.lower() not in IMAGE_SUFFIXES]
    if videos and len(videos) < len(found):
        logging.warning(
            "%s: images beside videos are left out, %d of %d files; name those that you want in "
            "a manifest",
            folder,
            len(found) - len(videos),
            len(found),
        )
    return videos or found


def _may_be_file(path: Path) -> bool:
    """Whether it is a file, or cannot be looked at: then the run says why."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # a link to nothing
        return False
    except OSError:
        return True


def _entry(value: Any, root: Path) -> Entry:
    if not isinstance(value, dict):
        raise ValueError(f"is {type(value).__name__}, not an object")
    if half := _HALF_CHARACTER.search(json.dumps(value, ensure_ascii=False)):
        raise ValueError(f"{half[0]!r} is half of a surrogate pair, not a character")
    value = dict(value)
    name: Any = value.pop("id", None)
    path: Any = value.pop("path", None)
    if type(name) is int:
        name = str(name)
    for key, text in {"id": name, "path": path}.items():
        if not isinstance(text, str) or not text:
            raise ValueError(f"{key!r} must be a text that is not empty, is {text!r}")
    if path.startswith("~/"):
        path = os.fspath(Path(path).expanduser())
    captions = value.pop("captions", None) or []
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise ValueError("'captions' must be a list of texts")
    label = value.pop("label", None)
    start, end = _seconds(value, "start"), _seconds(value, "end")
    problem = _path_problem(path, root)
    if problem is None and start is not None and end is not None and end <= start:
        problem = f"its 'start' {start:g} is not before its 'end' {end:g}"
    return Entry(
        id=name,
        path=Path(os.path.normpath(root / path)),
        start=start,
        end=end,
        captions=tuple(captions),
        label=None if label is None else str(label),
        extra=value,
        problem=problem,
    )


def _seconds(value: dict[str, Any], key: str) -> float | None:
    number = value.pop(key, None)
    if number is None:
        return None
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 <= number < 1e9:
        raise ValueError(f"{key!r} must be a number of seconds from 0, is {number!r}")
    return float(number)


def _path_problem(path: str, root: Path) -> str | None:
    if "\0" in path:
        return f"its path {path!r} holds a NUL character"
    if Path(path).is_absolute():
        return None
    try:
        inside = (root / path).resolve().is_relative_to(root)
    except (OSError, RuntimeError) as error:  # a loop of links
        return f"its path {path!r} cannot be resolved ({error})"
    if inside:
        return None
    return f"its path {path!r} leaves the manifest's folder {root}; an absolute path may"


def fingerprint(entries: Iterable[Entry]) -> list[dict[str, object]]:
    """JSON values that change when an entry, or the size or the time of its file does.

    The time is that of the last change; a copy keeps it only if asked to (`cp -p`, `rsync -t`).
    """
    values: list[dict[str, object]] = []
    for entry in entries:
        size = modified = None
        if entry.problem is None:
            with contextlib.suppress(OSError):  # the run says why it cannot be read
                status = entry.path.stat()
                size, modified = status.st_size, status.st_mtime_ns
        file = {"path": printable(entry.path.name), "size": size, "modified": modified}
        values.append({**dataclasses.asdict(entry), **file})
    return values
