"""Metrics of a run: one JSON line a step, and TensorBoard."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import tensorboardX


class MetricLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event file in a workdir."""

    def __init__(self, workdir: str | os.PathLike[str]):
        self._file = (Path(workdir) / "metrics.jsonl").open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(os.fspath(Path(workdir) / "tensorboard"))

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._board.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values that stand after `step` updates."""
        line = {"step": step, "time": round(time.time(), 3), **values}
        print(json.dumps(line), file=self._file, flush=True)
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
