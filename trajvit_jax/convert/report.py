"""Which arrays of a checkpoint a model takes, and which of its own stay without."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

Shape = tuple[int, ...]

_NUMBER = re.compile("0|[1-9][0-9]{0,8}")
_MOST_LINES = 20  # of one kind; the report's fields name every array


@dataclasses.dataclass(frozen=True)
class WrongShape:
    """An array whose shape is not the model's."""

    name: str
    found: Shape
    expected: Shape


@dataclasses.dataclass(frozen=True)
class Cast:
    """An array whose dtype is not the model's."""

    name: str
    found: str
    expected: str


@dataclasses.dataclass(frozen=True)
class Report:
    """How a checkpoint fits a model; every array is in exactly one of the first four.

    Attributes:
      used: names found, of the right shape.
      missing: names expected that are not there.
      left_over: names found that are not expected.
      wrong_shape: names found and expected, of another shape.
      cast: those of `used` whose dtype changes.
    """

    used: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()
    wrong_shape: tuple[WrongShape, ...] = ()
    cast: tuple[Cast, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether every array of the model was found in its shape."""
        return not self.missing and not self.wrong_shape

    def lines(self) -> list[str]:
        """The report for a person to read; `layers.0..11.*` stands for all arrays below these."""
        misfits = [item.name for item in self.wrong_shape]
        expected = {*self.used, *self.missing, *misfits}
        found = {*self.used, *self.left_over, *misfits}
        lines = paragraph(
            f"used: {len(self.used)} of the {len(expected)} arrays that the model has",
            summarize(self.used, expected),
        )
        if self.cast:
            lines += paragraph(
                f"cast: {len(self.cast)} of these are not of the model's dtype",
                _by_kind(self.cast, expected),
            )
        if self.missing:
            lines += paragraph(
                f"missing: {len(self.missing)} arrays of the model are not in the checkpoint",
                summarize(self.missing, expected),
            )
        if self.wrong_shape:
            lines += paragraph(
                f"wrong shape: {len(self.wrong_shape)} arrays are not of the model's shape",
                _by_kind(self.wrong_shape, expected),
            )
        if self.left_over:
            lines += paragraph(
                f"left over: {len(self.left_over)} arrays of the checkpoint are not in the model",
                summarize(self.left_over, found),
            )
        return lines

    def raise_if_incomplete(self, source: str | Path = "the checkpoint") -> None:
        """Does nothing if the model has all its arrays; what is left over does not matter.

        Args:
          source: what the message calls the checkpoint, its path for example.

        Raises:
          ValueError: arrays are missing or of the wrong shape; the message names them.
        """
        if not self.is_complete:
            what = [
                f"{count} {kind}"
                for count, kind in (
                    (len(self.missing), "missing"),
                    (len(self.wrong_shape), "of the wrong shape"),
                )
                if count
            ]
            raise ValueError(
                f"{source} does not fill the model ({', '.join(what)}): is it of this model, and "
                "of this size?\n" + "\n".join(self.lines())
            )


def match(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, Shape],
    *,
    dtype: DTypeLike = np.float32,
) -> Report:
    """Compares a checkpoint, names already translated, with the shapes a model expects.

    Args:
      found: the checkpoint's arrays.
      expected: the model's shapes.
      dtype: of the model's parameters.
    """
    dtype = np.dtype(dtype)
    common = [name for name in expected if name in found]
    used = tuple(name for name in common if found[name].shape == tuple(expected[name]))
    return Report(
        used=used,
        missing=tuple(name for name in expected if name not in found),
        left_over=tuple(name for name in found if name not in expected),
        wrong_shape=tuple(
            WrongShape(name, found[name].shape, tuple(expected[name]))
            for name in common
            if found[name].shape != tuple(expected[name])
        ),
        cast=tuple(
            Cast(name, found[name].dtype.name, dtype.name)
            for name in used
            if found[name].dtype != dtype
        ),
    )


def summarize(names: Collection[str], among: Collection[str]) -> list[str]:
    """Names in few lines: runs of numbers as `0..11`, whole layers as `0..11.*`, with counts.

    Args:
      names: dotted names.
      among: all names there are: `.*` is written only where it stands for `names` alone.
    """
    taken = set(names)
    whole = _whole_layers(taken, set(among) | taken)
    # Of a whole layer, one line stands for all its names.
    entries: dict[tuple[str, ...], int] = {}
    for name in names:
        parts = tuple(name.split("."))
        at = next((i for i in range(1, len(parts)) if parts[:i] in whole), None)
        entry = parts if at is None else (*parts[:at], "*")
        entries[entry] = entries.get(entry, 0) + 1
    longest = max(map(len, entries), default=0)
    for position in range(longest):
        entries = _merge(entries, position)
    return [
        ".".join(entry) + (f" ({count} arrays)" if count > 1 else "")
        for entry, count in entries.items()
    ]


def _whole_layers(taken: set[str], among: set[str]) -> set[tuple[str, ...]]:
    """Prefixes that end in a number, all of whose names (two or more) are taken."""
    sizes: defaultdict[tuple[str, ...], int] = defaultdict(int)
    broken = set()
    for name in among:
        parts = tuple(name.split("."))
        for end in range(1, len(parts)):
            if _NUMBER.fullmatch(parts[end - 1]):
                sizes[parts[:end]] += 1
                if name not in taken:
                    broken.add(parts[:end])
    return {prefix for prefix, size in sizes.items() if size > 1 and prefix not in broken}


def _merge(entries: Mapping[tuple[str, ...], int], position: int) -> dict[tuple[str, ...], int]:
    """Joins entries that differ only in a number at one position, where numbers follow on."""
    groups: dict[tuple[tuple[str, ...], ...], dict[int, int]] = {}
    for entry, count in entries.items():
        if len(entry) > position and _NUMBER.fullmatch(entry[position]):
            around = entry[:position], entry[position + 1 :]
            groups.setdefault(around, {})[int(entry[position])] = count
        else:
            groups[(entry,)] = {0: count}
    merged = {}
    for around, counts in groups.items():
        for run in _runs(sorted(counts)):
            number = str(run[0]) if len(run) == 1 else f"{run[0]}..{run[-1]}"
            entry = (*around[0], number, *around[1]) if len(around) == 2 else around[0]
            merged[entry] = sum(counts[i] for i in run)
    return merged


def _runs(numbers: list[int]) -> Iterator[list[int]]:
    for _, run in itertools.groupby(enumerate(numbers), lambda pair: pair[1] - pair[0]):
        yield [number for _, number in run]


def _by_kind(items: Collection[WrongShape | Cast], among: Collection[str]) -> list[str]:
    """A line for the names that share what was found and what was expected."""
    kinds = defaultdict(list)
    for item in items:
        kinds[item.found, item.expected].append(item.name)
    return [
        f"{line}: {found} in the checkpoint, {expected} in the model"
        for (found, expected), names in kinds.items()
        for line in summarize(names, among)
    ]


def paragraph(title: str, lines: list[str]) -> list[str]:
    """The lines below a title, the first of them if there are many."""
    # Never leave out a single one: the line that says so would be as long.
    kept = len(lines) if len(lines) == _MOST_LINES + 1 else _MOST_LINES
    more = len(lines[kept:])
    shown = [f"  {line}" for line in lines[:kept]]
    return [title, *shown, *([f"  ... and {more} more lines"] if more else [])]
