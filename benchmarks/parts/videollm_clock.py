"""Whether `benchmarks.videollm` took an hour: by the clock, where that tells of it alone."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from benchmarks.parts.kept_clock import StageClock
from tokenization.engines.devices import available_cores
from tokenization.files import write_text

OUTSIDE = "outside every stage"
ALONE = 0.05  # of the processors' time that others may take of a run that had the machine to itself
_HOUR = 3600.0  # seconds
_IDLE = (3, 4)  # columns of /proc/stat: idle, and waiting for a disk
_COUNTED = 8  # columns: those behind are part of the first


class RunClock(StageClock):
    """Also counts what of a run is in no stage, and how busy all programs kept the processors.

    Args:
      path: as that of `StageClock`; the processors' seconds of all programs are beside it, in
        busy_NAME.
    """

    def __init__(self, path: Path):
        super().__init__(path)
        self._busy_path = path.with_name(f"busy_{path.name}")
        there = self._busy_path.is_file()
        self._busy: dict[str, float] = json.loads(self._busy_path.read_text()) if there else {}
        self._began, self._counted = _now(), np.zeros(3)

    @contextlib.contextmanager
    def stage(self, name: str, *, again: bool = False) -> Iterator[None]:
        """See `StageClock.stage`."""
        earlier, began = 0.0 if again else self._before(name), _now()
        try:
            with super().stage(name, again=again):
                yield
        finally:
            spent = _now() - began
            self._counted += spent
            self._keep_busy(name, earlier + float(spent[2]))

    def finish(self) -> None:
        """Counts what of this run was in no stage, as a stage of its own; call it once."""
        rest = _now() - self._began - self._counted
        busy = self._before(OUTSIDE) + float(rest[2])
        for kept, spent in ((self._kept, rest[0]), (self._cpu, rest[1])):
            kept[OUTSIDE] = kept.get(OUTSIDE, 0.0) + float(spent)
        with super().stage(OUTSIDE):  # which writes them, and adds nothing
            pass
        self._keep_busy(OUTSIDE, busy)

    @property
    def others(self) -> float | None:
        """The share of the processors' time that other programs took; None = not known."""
        seconds, own = self.seconds, sum(self.cpu_seconds.values())
        busy = sum(self._busy.get(name, math.nan) for name in seconds)
        share = (busy - own) / max(sum(seconds.values()) * available_cores(), 1e-9)
        # Kernels that hide other programs count too little; of short runs ticks count too much.
        return min(max(share, 0.0), 1.0) if share > -ALONE else None

    def _before(self, name: str) -> float:
        """Of earlier runs; not known of one that only the other clocks counted."""
        return self._busy.get(name, math.nan if name in self._kept else 0.0)

    def _keep_busy(self, name: str, seconds: float) -> None:
        self._busy[name] = seconds
        write_text(self._busy_path, json.dumps(self._busy, indent=1) + "\n")


def hour_verdict(
    seconds: float, cpu_seconds: float, processors: int, others: float | None
) -> tuple[str, bool | None]:
    """What is said of the hour, and whether it holds; None = it is not judged.

    Args:
      seconds: of the clock.
      cpu_seconds: of the run's own programs.
      processors: that it had.
      others: share of the processors' time that other programs took; None = not known.
    """
    own = cpu_seconds / processors / 60
    told = f"CPU seconds / {processors} processors = {own:.1f} minutes"
    by_clock = f"{seconds / 60:.1f} minutes by the clock"
    # Whoever computes beside it can only lengthen it.
    if seconds < _HOUR:
        return f"in under 60 minutes of {processors} processors: {by_clock}; {told}", True
    if others is not None and others < ALONE:
        return f"in under 60 minutes of {processors} processors: {by_clock}; {told}", False
    shared = "how busy others were is not known" if others is None else f"others took {others:.0%}"
    return f"the hour is not judged by the clock ({by_clock}, {shared}): {told}", None


def _now() -> Float64[np.ndarray, "3"]:
    """Seconds: of the clock, of this program's processors, of all programs'."""
    return np.array([time.perf_counter(), sum(os.times()[:4]), _busy()])


def _busy() -> float:
    """Seconds that all programs kept this one's processors busy; NaN = the system tells nothing."""
    try:
        own = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = Path("/proc/stat").read_text().splitlines()
    except (AttributeError, OSError):
        return math.nan
    # A limit below so many is shared out by time: which of it others took is not told.
    if len(own) != available_cores():
        return math.nan
    found = [line.split() for line in lines if line.split(maxsplit=1)[:1][0] in own]
    ticks = sum(
        int(x)
        for _, *columns in found
        for number, x in enumerate(columns[:_COUNTED])
        if number not in _IDLE
    )
    return ticks / os.sysconf("SC_CLK_TCK") if found else math.nan
