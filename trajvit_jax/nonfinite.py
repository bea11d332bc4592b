"""What to do about steps whose loss or gradient is not finite: count, and give up in time."""

from __future__ import annotations

import collections
import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenization.files import write_text


@dataclasses.dataclass(frozen=True)
class _Step:
    step: int
    finite: Any
    ids: tuple[str, ...]
    measures: Mapping[str, Any]


class NonFiniteGuard:
    """Counts the steps that changed nothing because a number was not finite.

    A step's numbers are looked at `lag` steps later, when the device has long made them: looking
    at once would have it wait for the host. The step itself keeps the old state, so nothing is
    lost by that.

    Args:
      workdir: where the ids of the batches go if the run is given up.
      limit: so many steps in a row end the run.
      lag: steps between a step and the look at it.
      process: number of this process; each writes the ids that it read.

    Attributes:
      skipped: such steps since the start.
      in_a_row: such steps up to the last one looked at.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        limit: int = 10,
        lag: int = 1,
        process: int = 0,
    ):
        self._workdir, self._limit, self._lag = Path(workdir), limit, lag
        self._process = process
        self._waiting: collections.deque[_Step] = collections.deque()
        self._bad: list[_Step] = []
        self.skipped = 0

    @property
    def in_a_row(self) -> int:
        """Steps without an update up to the last one looked at."""
        return len(self._bad)

    def add(
        self, step: int, finite: Any, ids: Sequence[str], measures: Mapping[str, Any] | None = None
    ) -> None:
        """Takes note of a step; looks at those that are `lag` steps old.

        Args:
          step: its number.
          finite: a bool, or an array of one on the device: whether the update was made.
          ids: of the records that this process read for it.
          measures: what else tells of it: loss, gradient norm.

        Raises:
          FloatingPointError: `limit` steps in a row were not finite; the message names the file
            with their ids.
        """
        self._waiting.append(_Step(step, finite, tuple(ids), dict(measures or {})))
        while len(self._waiting) > self._lag:
            self._look()

    def finish(self) -> None:
        """Looks at all steps.

        Raises:
          FloatingPointError: as `add`.
        """
        while self._waiting:
            self._look()

    def _look(self) -> None:
        one = self._waiting.popleft()
        if bool(one.finite):
            self._bad.clear()
            return
        self.skipped += 1
        self._bad.append(one)
        if len(self._bad) >= self._limit:
            path = self._dump()
            raise FloatingPointError(
                f"{len(self._bad)} steps in a row up to step {one.step} had a loss or gradient "
                f"that is not finite; none changed the parameters. What they read is in {path}. "
                "Try a lower learning rate, or look at these records"
            )

    def _dump(self) -> Path:
        suffix = f"-process{self._process}" if self._process else ""
        path = self._workdir / f"nonfinite-{self._bad[-1].step}{suffix}.json"
        steps = [
            {
                "step": one.step,
                "ids": list(one.ids),
                "measures": {name: _text(value) for name, value in one.measures.items()},
            }
            for one in self._bad
        ]
        write_text(path, json.dumps({"steps": steps}, indent=2) + "\n")
        return path


def _text(value: Any) -> str:
    return f"{float(value):g}"  # JSON has no NaN
