"""A window of steps under JAX's profiler, on request."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import jax

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ProfileSettings:
    """Which steps are profiled.

    Attributes:
      start: the first of them, counted from the run's part that this process does; 0 = none.
        From 3 on nothing is compiled any more.
      steps: how many.

    Raises:
      ValueError: a negative start, or no steps.
    """

    start: int = 0
    steps: int = 3

    def __post_init__(self) -> None:
        if self.start < 0 or self.steps < 1:
            raise ValueError(
                f"profile.start must be at least 0 and profile.steps at least 1, got "
                f"{self.start} and {self.steps}"
            )


class Profiler:
    """Writes `WORKDIR/profile`, which TensorBoard's profile plug-in and Perfetto open."""

    def __init__(self, settings: ProfileSettings, workdir: Path):
        self._settings, self._folder = settings, workdir / "profile"
        self._running = False

    def __enter__(self) -> Profiler:
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def before(self, step: int, running: Any = None) -> None:
        """Call before a step is started.

        Args:
          step: counted from 1.
          running: arrays of the step before, which may still be computed: it is waited for where
            the window begins and ends.
        """
        if not self._settings.start:
            return
        if step in (self._settings.start, self._settings.start + self._settings.steps):
            jax.block_until_ready(running)
        if step == self._settings.start:
            jax.profiler.start_trace(str(self._folder))
            self._running = True
        elif step == self._settings.start + self._settings.steps:
            self._stop()

    def _stop(self) -> None:
        if self._running:
            jax.profiler.stop_trace()
            self._running = False
            _LOG.info("profile of %d steps in %s", self._settings.steps, self._folder)
