"""What arguments of several benchmarks may be: types for argparse."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable
from pathlib import Path

from trajvit_jax.config import nearest


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, got {text!r}")
    return int(text)


def counts(text: str) -> list[int]:
    """Several of them, with commas."""
    return [count(one) for one in text.split(",")]


def count_or_none(text: str) -> int:
    """A whole number of at least 0."""
    return 0 if text == "0" else count(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text!r}")
    return number


def share(text: str) -> float:
    """A part of a whole, and not nothing."""
    if (number := positive(text)) > 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, got {text!r}")
    return number


def some_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """Some of these names, with commas."""
    known = tuple(names)

    def read(text: str) -> list[str]:
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is unknown: {nearest(name, known)}")
        return text.split(",")

    return read


def new_file(text: str) -> Path:
    """A file that can be made, told before the work that fills it is done."""
    path = Path(text)
    folder = next(one for one in path.absolute().parents if one.exists())
    if (path.exists() and not path.is_file()) or not folder.is_dir():
        raise argparse.ArgumentTypeError(f"no file can be made at {text!r}; name another one")
    return path
