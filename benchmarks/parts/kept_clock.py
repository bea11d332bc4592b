"""Seconds of a benchmark's stages, kept in files: an interrupted run's count, too."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from tokenization.files import write_text


class StageClock:
    """Seconds by stage, on the clock and of all processors together.

    Of a run that is killed outright the stage that it was in is lost; one that is interrupted
    counts. The start of the program itself is in no stage.

    Args:
      path: of the file, JSON; made where it does not exist. Seconds of processors are in another
        beside it, cpu_NAME.
    """

    def __init__(self, path: Path):
        self._path = path
        self._kept = _read(path)
        self._cpu_path = path.with_name(f"cpu_{path.name}")
        self._cpu = _read(self._cpu_path)
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
        cpu_earlier, cpu_started = 0.0 if again else self._cpu.get(name, 0.0), _cpu_seconds()
        try:
            yield
        finally:
            self._kept[name] = earlier + time.perf_counter() - started
            self._cpu[name] = cpu_earlier + _cpu_seconds() - cpu_started
            self._path.parent.mkdir(parents=True, exist_ok=True)
            for path, kept in ((self._path, self._kept), (self._cpu_path, self._cpu)):
                write_text(path, json.dumps(kept, indent=1) + "\n")

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage that this run has been in, those of earlier runs included."""
        return {name: spent for name, spent in self._kept.items() if name in self._used}

    @property
    def cpu_seconds(self) -> dict[str, float]:
        """Likewise, of processors: what others compute at the same time does not count."""
        return {name: spent for name, spent in self._cpu.items() if name in self._used}


def _read(path: Path) -> dict[str, float]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _cpu_seconds() -> float:
    """Of this process and of all that it has waited for."""
    return sum(os.times()[:4])
