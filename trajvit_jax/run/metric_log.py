"""Metrics of a run: one JSON line a step, TensorBoard, and Weights & Biases on request."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorboardX

from tokenization.files import write_text


class MetricLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event file in a workdir.

    Args:
      step: where the run goes on; what a lost run wrote of later steps is dropped.
      wandb: project of Weights & Biases; '' = none. The run there has the workdir's name, and a
        resumed one goes on in it.

    Raises:
      ValueError: a project, but no package `wandb`.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, step: int = 0, wandb: str = ""):
        self._remote = _remote(wandb, Path(workdir)) if wandb else None
        path = Path(workdir) / "metrics.jsonl"
        self._lines = [entry for entry in _read(path) if entry["step"] <= step]
        write_text(path, "".join(json.dumps(line) + "\n" for line in self._lines))
        self._file = path.open("a", encoding="utf-8")
        self._board = tensorboardX.SummaryWriter(
            os.fspath(Path(workdir) / "tensorboard"), purge_step=step + 1
        )

    def values(self, name: str) -> list[float]:
        """What was logged under a name since step 0, earlier runs of the workdir included."""
        return [line[name] for line in self._lines if line.get(name) is not None]

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
        if self._remote is not None:
            self._remote.finish()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values that stand after `step` updates; what is not finite is null."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        told = {name: finite.get(name) for name in values}
        line = {"step": step, "time": round(time.time(), 3), **told}
        self._lines.append(line)
        print(json.dumps(line), file=self._file, flush=True)
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)
        if self._remote is not None:
            self._remote.log(finite, step=step)


def _remote(project: str, workdir: Path) -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ValueError(
            f"wandb={project!r} needs the package wandb: pip install wandb, or set wandb=''"
        ) from error
    path = workdir.resolve()
    own = f"{path.name}-{zlib.crc32(os.fspath(path).encode()):08x}"
    return wandb.init(project=project, name=path.name, id=own, dir=path, resume="allow")


def _read(path: Path) -> list[dict[str, Any]]:
    """Entries of a log; a last line that was cut off by a crash does not count."""
    entries = []
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            entries.append(json.loads(line))
    return entries
