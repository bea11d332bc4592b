"""Measures by name in one JSON file, to which each run adds its own."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from tokenization.files import write_text

M = TypeVar("M")


def read_measures(path: Path, kind: type[M]) -> dict[str, M]:
    """What was measured, by name; nothing where there is no file.

    Args:
      path: of the file.
      kind: the data class of each.

    Raises:
      ValueError: a file that holds something else.
    """
    if not path.exists():
        return {}
    try:
        return {name: kind(**one) for name, one in json.loads(path.read_text("utf-8")).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} does not hold {kind.__name__} by name ({error}); restore it, or remove it to "
            "measure again"
        ) from error


def add_measures(path: Path, found: Mapping[str, Any], kind: type[Any]) -> None:
    """Writes them beside those of other names, which stay; nothing if none was measured."""
    if not found:
        return
    values = read_measures(path, kind) | dict(found)
    text = json.dumps({name: dataclasses.asdict(one) for name, one in values.items()}, indent=1)
    write_text(path, text + "\n")
