"""Entries -> a manifest, the list of missing files, and a quarantine of what gave no entry."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TextIO

from tokenization import missing
from tokenization.annotations.problems import AnnotationError, Malformed
from tokenization.files import printable, replacing
from tokenization.manifest import Entry

_SHOWN = 5  # problems that the summary names


@dataclasses.dataclass
class Summary:
    """What became of the items of annotation files.

    Attributes:
      entries: in the manifest.
      captions: of them all.
      labelled: entries with one or several classes.
      classes: different ones among them.
      missing: entries whose file is not there, in the manifest only if asked to be kept.
      missing_files: those files.
      missing_kept: of the missing, entries that are in the manifest.
      duplicates: entries refused because their id was taken.
      malformed: other items that gave no entry.
      left_out: entries that were not among the wanted ids.
      not_found: how many of the wanted ids there are not.
      examples: the first few problems.
    """

    entries: int = 0
    captions: int = 0
    labelled: int = 0
    classes: int = 0
    missing: int = 0
    missing_files: int = 0
    missing_kept: int = 0
    duplicates: int = 0
    malformed: int = 0
    left_out: int = 0
    not_found: int = 0
    examples: list[str] = dataclasses.field(default_factory=list)

    @property
    def bad(self) -> float:
        """Fraction of the items that are malformed or duplicates."""
        refused = self.malformed + self.duplicates
        return refused / max(1, refused + self.entries + self.missing - self.missing_kept)

    def __str__(self) -> str:
        lines = [
            f"{self.entries} entries, {self.captions} captions, {self.labelled} labelled "
            f"({self.classes} classes)"
        ]
        if self.missing:
            lines.append(f"{self.missing} entries miss their file ({self.missing_files} files)")
        if self.left_out or self.not_found:
            lines.append(f"{self.left_out} left out; {self.not_found} ids of --only not found")
        if self.malformed or self.duplicates:
            refused = f"{self.malformed} malformed, {self.duplicates} duplicates refused"
            lines.append(f"{refused} ({self.bad:.1%}):")
            lines += [f"  {example}" for example in self.examples]
            more = self.malformed + self.duplicates - len(self.examples)
            lines += [f"  and {more} more"] if more else []
        return "\n".join(lines)


def beside(output: Path, suffix: str) -> Path:
    """The name of a file beside a manifest: train.jsonl -> train.missing.txt."""
    return output.with_name(output.name.removesuffix(".jsonl") + suffix)


def write_manifest(
    found: Iterable[Entry | Malformed],
    output: str | os.PathLike[str],
    *,
    only: Collection[str] | None = None,
    keep_missing: bool = False,
    absolute_paths: bool = False,
) -> Summary:
    """Writes a manifest that `tokenization.manifest` reads.

    Beside NAME.jsonl it writes NAME.missing.txt (see `tokenization.missing`) and
    NAME.quarantine.jsonl, or removes them where there is nothing to tell. All files are whole or
    not there.

    Args:
      found: what a reader yields.
      output: the manifest, NAME.jsonl.
      only: ids to keep; None = all.
      keep_missing: keep entries whose file is not there.
      absolute_paths: write absolute paths instead of relative ones.

    Raises:
      AnnotationError: another name, or no entry is left; then there is no new manifest, but the
        two other files are.
    """
    output = Path(output)
    if output.suffix != ".jsonl":
        raise AnnotationError(f"--output={output} should be named NAME.jsonl")
    listed, quarantine = missing.beside(output), beside(output, ".quarantine.jsonl")
    with (
        replacing(listed) as missing_part,
        replacing(quarantine) as quarantine_part,
        missing_part.open("w", encoding="utf-8") as missing_file,
        quarantine_part.open("w", encoding="utf-8") as quarantine_file,
    ):
        writer = _Writer(
            None if absolute_paths else os.path.join(output.parent.resolve(), ""),  # noqa: PTH118
            missing_file,
            quarantine_file,
            keep_missing=keep_missing,
        )
        with contextlib.suppress(_NothingWritten), replacing(output) as part:
            with part.open("w", encoding="utf-8") as file:
                for item in found:
                    writer.add(item, file, only)
            if not writer.summary.entries:
                raise _NothingWritten
    summary = writer.summary
    summary.not_found = 0 if only is None else len(set(only) - writer.ids)
    for path in (listed, quarantine):
        if not path.stat().st_size:
            path.unlink()
    if not summary.entries:
        raise AnnotationError(_nothing(summary, writer.first_missing))
    return summary


class _NothingWritten(Exception):
    """Keeps an empty manifest from replacing another."""


class _Writer:
    """Sorts items into the three files."""

    def __init__(
        self, root: str | None, missing: TextIO, quarantine: TextIO, *, keep_missing: bool
    ) -> None:
        self.summary = Summary()
        self.ids: set[str] = set()
        self.first_missing: Path | None = None
        self._root = root
        self._missing, self._quarantine = missing, quarantine
        self._keep_missing = keep_missing
        self._missing_paths: set[Path] = set()
        self._classes: set[str] = set()

    def add(self, item: Entry | Malformed, file: TextIO, only: Collection[str] | None) -> None:
        if isinstance(item, Malformed):
            self.summary.malformed += 1
            self._refuse(item)
        elif only is not None and item.id not in only:
            self.summary.left_out += 1
        elif item.id in self.ids:
            self.summary.duplicates += 1
            reason, remedy = "its id is taken", "the first one was kept; remove one of the two"
            self._refuse(Malformed(item.path, f"id {item.id!r}", reason, remedy))
        else:
            self._write(item, file)

    def _write(self, entry: Entry, file: TextIO) -> None:
        try:
            line = _line(entry, self._root)
        except ValueError as error:
            self.summary.malformed += 1
            remedy = "rename or copy the file, or see --absolute_paths"
            self._refuse(Malformed(entry.path, f"id {printable(entry.id)!r}", str(error), remedy))
            return
        self.ids.add(entry.id)
        if not entry.path.is_file():
            self.summary.missing += 1
            if entry.path not in self._missing_paths:
                self._missing_paths.add(entry.path)
                self.summary.missing_files += 1
                self.first_missing = self.first_missing or entry.path
            self._missing.write(missing.line_of(entry.id, entry.path))
            if not self._keep_missing:
                return
            self.summary.missing_kept += 1
        file.write(line + "\n")
        self._count(entry)

    def _count(self, entry: Entry) -> None:
        labels = entry.extra.get("labels", entry.extra.get("label_indices"))
        if not isinstance(labels, list):
            labels = [] if entry.label is None else [entry.extra.get("label_index", entry.label)]
        self._classes.update(map(str, labels))
        self.summary.entries += 1
        self.summary.captions += len(entry.captions)
        self.summary.labelled += bool(labels)
        self.summary.classes = len(self._classes)

    def _refuse(self, item: Malformed) -> None:
        if len(self.summary.examples) < _SHOWN:
            self.summary.examples.append(printable(str(item)))
        values = {**dataclasses.asdict(item), "file": printable(item.file)}
        self._quarantine.write(json.dumps(values) + "\n")


def _line(entry: Entry, root: str | None) -> str:
    """An entry as a line of JSON; its path is relative to `root`, which ends in a slash.

    Raises:
      ValueError: its file is outside `root`, or it holds what is no UTF-8.
    """
    if root is None:
        path = str(entry.path)
    elif os.path.realpath(entry.path).startswith(root):
        path = os.fspath(entry.path).removeprefix(root)
    else:
        raise ValueError(f"it is a link that leaves the manifest's folder {root}")
    known = {
        "id": entry.id,
        "path": path,
        "start": entry.start,
        "end": entry.end,
        "captions": list(entry.captions) or None,
        "label": entry.label,
    }
    kept = {key: value for key, value in known.items() if value is not None}
    line = json.dumps({**kept, **entry.extra}, ensure_ascii=False, allow_nan=False)
    try:
        line.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError("its name or its captions are not UTF-8") from error
    return line


def _nothing(summary: Summary, first: Path | None) -> str:
    """Why there is no entry."""
    if summary.missing:
        return (
            f"none of the {summary.missing_files} files is there, the first would be {first}; "
            "correct --media, or pass --keep_missing"
        )
    if summary.malformed:
        return f"every item is malformed, the first: {summary.examples[0]}"
    if summary.left_out:
        return f"none of the {summary.left_out} entries is in --only; ids must be equal"
    return "there is no entry; correct --annotations or --split"
