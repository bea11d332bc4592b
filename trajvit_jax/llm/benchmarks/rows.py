"""Annotation files as rows: JSON, JSON lines, CSV or Parquet; checks of their keys and values."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenization.annotations import sources
from tokenization.annotations.problems import AnnotationError, ItemError, shown
from trajvit_jax.config import nearest
from trajvit_jax.llm.benchmarks.contract import Annotations, Item, Unusable

# A comma before a closing bracket, which JSON does not allow and some published files have;
# quoted texts are matched first, so that nothing in them is touched.
_LOOSE = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')


def read_json(file: Path) -> Any:
    """A JSON file; commas before a closing bracket are overlooked.

    Raises:
      AnnotationError: it cannot be read, or is no JSON.
    """
    try:
        return sources.read_json(file)
    except AnnotationError as strict:
        try:
            text = file.read_text("utf-8-sig")
            return json.loads(_LOOSE.sub(lambda match: match[1] or "", text))
        except (OSError, ValueError, RecursionError):
            raise strict from None


def read_rows(file: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with where each is: a JSON list, JSON lines, CSV or Parquet.

    Raises:
      AnnotationError: it cannot be read, or is none of these.
    """
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _parquet(file)
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(file)
    if suffix == ".csv":
        return _csv(file)
    if suffix == ".json":
        return sources.json_list(file, read_json(file))
    raise AnnotationError(f"{file} is no .json, .jsonl, .csv or .parquet file")


def _csv(file: Path) -> Iterator[tuple[str, Any]]:
    for where, row in sources.csv_rows(file):
        if isinstance(row, ItemError):
            raise AnnotationError(f"{file} {where}: {row}; download it again")
        yield where, row


def _json_lines(file: Path) -> Iterator[tuple[str, Any]]:
    for where, line in sources.lines(file):
        try:
            yield where, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise AnnotationError(f"{file} {where} is no JSON: {error}") from error


def _parquet(file: Path) -> Iterator[tuple[str, Any]]:
    try:
        from pyarrow import parquet  # late: it is slow to load and comes with TFDS only
    except ImportError as error:
        raise AnnotationError(
            f"{file}: pyarrow, which reads Parquet, is not installed; pip install pyarrow, or "
            "convert the file to JSON lines"
        ) from error
    try:
        rows = parquet.read_table(file).to_pylist()
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{file} is no Parquet file: {error}; download it again") from error
    return ((f"row {position}", row) for position, row in enumerate(rows))


class Row:
    """A row whose keys are known; every fault is an AnnotationError that says where."""

    def __init__(
        self,
        file: Path,
        where: str,
        found: object,
        *,
        needs: Collection[str],
        may: Collection[str] = (),
    ) -> None:
        """Checks the keys.

        Args:
          file: that it is from.
          where: in the file.
          found: what was read.
          needs: keys that it must have.
          may: keys that it may have, too.

        Raises:
          AnnotationError: no object, a key that is missing, or one that is unknown.
        """
        self._at = f"{file} {where}"
        if not isinstance(found, dict):
            raise self.fault(f"is {shown(found)}, not an object with {_listed(needs)}")
        for key in found:
            if key not in needs and key not in may:
                hint = nearest(str(key), [*needs, *may])
                raise self.fault(
                    f"has the unknown key {key!r} ({hint}); is it the file of another benchmark?"
                )
        for key in needs:
            if key not in found:
                raise self.fault(f"has no {key!r}; is it the file of another benchmark?")
        self._found = found

    def fault(self, what: str) -> AnnotationError:
        """An error about this row."""
        return AnnotationError(f"{self._at} {what}")

    def unusable(self, reason: str) -> Unusable:
        """This row as one that nobody can be asked."""
        return Unusable(self._at, reason)

    def has(self, key: str) -> bool:
        """Whether it has a value under this key."""
        return self._found.get(key) is not None

    def raw(self, key: str) -> Any:
        """A value as it was read."""
        return self._found[key]

    def text(self, key: str) -> str:
        """A text that is not empty, or a whole number as text, without space around it."""
        found = self._found[key]
        if type(found) is int:
            found = str(found)
        if not isinstance(found, str) or not found.strip():
            raise self.fault(f"has {key!r}: {shown(found)}, which must be a text, not empty")
        return found.strip()

    def any_text(self, key: str) -> str:
        """A text, which may be empty, without space around it."""
        return "" if self._found[key] == "" else self.text(key)

    def written(self, key: str) -> str:
        """As `any_text`, with the space around it: prompts have it where lmms-eval's do."""
        self.any_text(key)
        return str(self._found[key])

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; they may be empty."""
        found = self._found[key]
        if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
            raise self.fault(f"has {key!r}: {shown(found)}, which must be a list of texts")
        return tuple(one.strip() for one in found)

    def one_of(self, key: str, known: Collection[str]) -> str:
        """A text that is one of these."""
        found = self.text(key)
        if found not in known:
            raise self.fault(f"has {key!r}: {found!r}; {nearest(found, known)}")
        return found

    def number(self, key: str) -> float:
        """A number from 0."""
        found = self._found[key]
        try:
            result = float(found)
        except (TypeError, ValueError):
            result = -1.0
        if isinstance(found, bool) or not 0 <= result < float("inf"):
            raise self.fault(f"has {key!r}: {shown(found)}, which must be a number from 0")
        return result

    def letter(self, key: str, count: int) -> str:
        """The letter of one of `count` options."""
        found = self.text(key).upper()
        known = letters(count)
        if found not in known:
            raise self.fault(
                f"has {key!r}: {shown(self._found[key])}, which must be one of its options' "
                f"letters, {', '.join(known)}"
            )
        return found


def letters(count: int) -> tuple[str, ...]:
    """A, B, .. of so many options."""
    return tuple(chr(ord("A") + position) for position in range(count))


def lettered(options: Sequence[str], form: str = "{letter}. {option}") -> str:
    """Options as lines with their letters."""
    lines = zip(letters(len(options)), options, strict=True)
    return "\n".join(form.format(letter=letter, option=option) for letter, option in lines)


def files_below(paths: Sequence[Path], pattern: str) -> list[Path]:
    """Files, with each folder replaced by those of its files that match, in order of name.

    Raises:
      AnnotationError: a path that does not exist, or a folder without such files.
    """
    files: list[Path] = []
    for path in paths:
        if not path.exists():
            raise AnnotationError(f"{path} does not exist; correct --annotations")
        found = sorted(path.glob(pattern)) if path.is_dir() else [path]
        if not found:
            raise AnnotationError(f"{path} has no files {pattern}; correct --annotations")
        files += found
    return files


def collected(items: Iterable[Item | Unusable], files: Sequence[Path]) -> Annotations:
    """The items of files, once it is known that no id comes twice.

    Raises:
      AnnotationError: a question that comes twice, or none at all.
    """
    good: dict[str, Item] = {}
    unusable = []
    for item in items:
        if isinstance(item, Unusable):
            unusable.append(item)
        elif item.id in good:
            raise AnnotationError(
                f"{_listed(str(file) for file in files)}: the question {item.id!r} comes twice; "
                "name each file once in --annotations, or remove one of them"
            )
        else:
            good[item.id] = item
    if not good:
        raise AnnotationError(f"{_listed(str(file) for file in files)}: there is no question")
    return Annotations(tuple(good.values()), tuple(unusable))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)
