"""What to do about steps whose loss or gradient is not finite: count, and give up in time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenization.files import write_text


@dataclasses.dataclass(frozen=True)
class _Step:
    step: int
    ids: tuple[str, ...]
    measures: Mapping[str, float]


class NonFiniteGuard:
    """Counts steps in a row that changed nothing because a number was not finite.

    The step itself keeps the old state, so nothing is lost by going on for a while.

    Args:
      workdir: where the ids of the batches go if the run is given up.
      limit: so many steps in a row end the run.
      process: number of this process; each writes the ids that it read.
      streak: steps in a row up to the one where the run goes on; their ids are not known any more.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        limit: int = 10,
        process: int = 0,
        streak: int = 0,
    ):
        self._workdir, self._limit, self._process = Path(workdir), limit, process
        self._before = streak
        self._bad: list[_Step] = []

    @property
    def streak(self) -> int:
        """Steps in a row, up to the last one, that were not finite."""
        return self._before + len(self._bad)

    def add(
        self,
        step: int,
        ids: Sequence[str],
        measures: Mapping[str, float],
        *,
        finite: bool,
    ) -> None:
        """Takes note of a step.

        Args:
          step: its number.
          ids: of the records that this process read for it.
          measures: what else tells of it: loss, gradient norm.
          finite: whether the update was made.

        Raises:
          FloatingPointError: `limit` steps in a row were not finite; the message names the file
            with their ids.
        """
        if finite:
            self._bad.clear()
            self._before = 0
            return
        self._bad.append(_Step(step, tuple(ids), dict(measures)))
        if self.streak >= self._limit:
            path = self._dump()
            raise FloatingPointError(
                f"{self.streak} steps in a row up to step {step} had a loss or gradient "
                f"that is not finite; none changed the parameters. What they read is in {path}. "
                "Try a lower learning rate, or look at these records"
            )

    def _dump(self) -> Path:
        suffix = f"-process{self._process}" if self._process else ""
        path = self._workdir / f"nonfinite-{self._bad[-1].step}{suffix}.json"
        # As text: JSON has no NaN.
        steps = [
            {
                "step": one.step,
                "ids": list(one.ids),
                "measures": {name: f"{value:g}" for name, value in one.measures.items()},
            }
            for one in self._bad
        ]
        write_text(path, json.dumps({"steps": steps}, indent=2) + "\n")
        return path
