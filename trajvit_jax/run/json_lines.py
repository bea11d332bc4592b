"""Files of one JSON object a line, which a killed run may have cut off."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from tokenization.files import write_text


def read_lines(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The objects of a file, if it is there; a line that was cut off is none."""
    path, found = Path(path), []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                found.append(entry)
    return found


def go_on_after(path: str | os.PathLike[str], kept: Iterable[Mapping[str, Any]]) -> TextIO:
    """Leaves these lines in a file, and opens it for more."""
    write_text(path, "".join(line(one) for one in kept))
    return Path(path).open("a", encoding="utf-8")


def line(entry: Mapping[str, Any]) -> str:
    """An object as its line."""
    return json.dumps(entry) + "\n"


def of_process(workdir: str | os.PathLike[str], name: str, process: int) -> Path:
    """`name.jsonl` of process 0, `name-N.jsonl` of another."""
    return Path(workdir) / (f"{name}-{process}.jsonl" if process else f"{name}.jsonl")
