"""Annotation files as items: of JSON, of CSV, or lines; each knows where it is."""

from __future__ import annotations

import ast
import csv
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations.problems import AnnotationError, ItemError, shown
from tokenization.annotations.reading import index

_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # how bytes that are no UTF-8 are read


def read_json(file: Path) -> Any:
    """A JSON file.

    Raises:
      AnnotationError: it cannot be read, or is no JSON.
    """
    try:
        return json.loads(_bytes(file).decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file} is no JSON file: {error}; download it again") from error


def json_list(file: Path, found: object, key: str | None = None) -> Iterator[tuple[str, Any]]:
    """Items of a list that was read from JSON (`found[key]`, or `found` itself).

    Raises:
      AnnotationError: it is no list.
    """
    name = "the file" if key is None else repr(key)
    if key is not None:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, list):
        raise AnnotationError(
            f"{file}: {name} should be a list; is it the file of another dataset?"
        )
    return ((f"item {position}", item) for position, item in enumerate(found))


def json_object(file: Path, found: object) -> Iterator[tuple[str, tuple[str, Any]]]:
    """Keys and values of an object that was read from JSON.

    Raises:
      AnnotationError: it is none.
    """
    if not isinstance(found, dict):
        raise AnnotationError(f"{file} should be an object; is it the file of another dataset?")
    return ((f"key {key!r}", (key, item)) for key, item in found.items())


def lines(file: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file that are not empty, without space around them.

    Raises:
      AnnotationError: it cannot be read, or is not UTF-8.
    """
    try:
        content = _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{file} is not UTF-8: {error}; convert it") from error
    for position, line in enumerate(content.split("\n"), 1):
        if line.strip():
            yield f"line {position}", line.strip()


def csv_rows(
    file: Path, *, needs: Sequence[str] = (), delimiters: str = ","
) -> Iterator[tuple[str, dict[str, str] | ItemError]]:
    """Rows of a CSV file with a header, read one by one, or what is wrong with a row.

    Args:
      file: the file.
      needs: columns that the header must have.
      delimiters: the header tells which of them is used.

    Raises:
      AnnotationError: it cannot be read, or lacks a column.
    """
    rows = plain_rows(file, delimiters=delimiters)
    header = next(rows, ("", []))[1]
    names = [] if isinstance(header, ItemError) else [name.strip() for name in header]
    missing = [name for name in needs if name not in names]
    if missing:
        raise AnnotationError(
            f"{file} has no column {missing[0]!r} (its first line: {shown(header)}); "
            "is it the file of another dataset?"
        )
    for where, row in rows:
        if isinstance(row, ItemError):
            yield where, row
        elif len(row) != len(names):
            yield where, ItemError(f"it has {len(row)} fields, the header has {len(names)}")
        else:
            yield where, dict(zip(names, row, strict=True))


def plain_rows(file: Path, *, delimiters: str = ",") -> Iterator[tuple[str, list[str] | ItemError]]:
    """Rows of a CSV file, its header among them, or what is wrong with a row.

    Raises:
      AnnotationError: it cannot be read.
    """
    csv.field_size_limit(2**31 - 1)  # of the whole module; a thousand captions may be one field
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            delimiter = max(delimiters, key=first.count)
            # Without quotes, a tab-separated caption may start with one.
            quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
            reader = csv.reader(stream, delimiter=delimiter, quoting=quoting)
            for row in reader:
                bad = next(filter(_NOT_UTF8.search, row), None)
                if bad is not None:
                    yield f"line {reader.line_num}", ItemError(f"{shown(bad)} is not UTF-8")
                elif row:
                    yield f"line {reader.line_num}", row
    except OSError as error:
        raise AnnotationError(_unreadable(file, error)) from error
    except csv.Error as error:
        raise AnnotationError(f"{file} is no CSV file: {error}; download it again") from error


def literal(written: str, what: str) -> list[Any]:
    """A list that was written as Python text, as in "['a', 'b']"; nothing is evaluated.

    Raises:
      ItemError: it is no list of plain values.
    """
    try:
        found = ast.literal_eval(written)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ItemError(f"{what} {shown(written)} is no list: {error}") from error
    if not isinstance(found, list):
        raise ItemError(f"{what} {shown(written)} must be a list")
    return found


class ClassNames:
    """The classes of a dataset, by index from 0.

    Attributes:
      file: they are from, or None where no list was given.
    """

    def __init__(self, file: Path | None) -> None:
        """Reads a list of names, one a line, or a JSON object of names and indices.

        Raises:
          AnnotationError: it cannot be read or holds a class twice.
        """
        self.file = file
        names = [] if file is None else list(_class_names(file))
        self._indices = dict(zip(names, range(len(names)), strict=True))
        if len(self._indices) < len(names):
            raise AnnotationError(f"{file} has a class twice; correct --labels")

    def extra(self, label: str) -> dict[str, object]:
        """`label_index` of a class; nothing where no list was given.

        Raises:
          ItemError: the list does not have it.
        """
        if self.file is None:
            return {}
        if label not in self._indices:
            raise ItemError(f"the class {label!r} is not in {self.file}")
        return {"label_index": self._indices[label]}


def _class_names(file: Path) -> Iterator[str]:
    if file.suffix.lower() != ".json":
        yield from (line for _, line in lines(file))
        return
    by_index: dict[int, str] = {}
    for where, (name, found) in json_object(file, read_json(file)):
        try:
            by_index[index(found, "the index")] = name
        except ItemError as error:
            raise AnnotationError(f"{file} {where}: {error}; correct --labels") from error
    for position in range(len(by_index)):
        if position not in by_index:
            raise AnnotationError(f"{file} has no class {position}; correct --labels")
        yield by_index[position]


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise AnnotationError(_unreadable(file, error)) from error


def _unreadable(file: Path, error: OSError) -> str:
    return f"{file} cannot be read: {error.strerror or error}; correct --annotations or --labels"
