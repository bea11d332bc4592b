"""Seconds of a benchmark's stages, kept in a file: an interrupted run's count, too."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

from tokenization.files import write_text


class StageClock:
    """Seconds by stage.

    Of a run that is killed outright the stage that it was in is lost; one that is interrupted
    counts. The start of the program itself is in no stage.

    Args:
      path: of the file, JSON; made where it does not exist.
    """

    def __init__(self, path: Path):
        self._path = path
        self._kept: dict[str, float] = json.loads(path.read_text()) if path.is_file() else {}
        self._used: set[str] = set()

    @contextlib.contextmanager
    def stage(self, name: str, *, again: bool = False) -> Iterator[None]:
        """Counts what happens inside.

        Args:
          name: of the stage.
          again: every run does all of it again, so that only the last one counts; else a run
            goes on where the last one ended, and all count.
        """
        self._used.add(name)
        earlier, started = 0.0 if again else self._kept.get(name, 0.0), time.perf_counter()
        try:
            yield
        finally:
            self._kept[name] = earlier + time.perf_counter() - started
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(self._kept, indent=1) + "\n")

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage that this run has been in, those of earlier runs included."""
        return {name: spent for name, spent in self._kept.items() if name in self._used}
