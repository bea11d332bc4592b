"""Metrics of a run: one JSON line a step, TensorBoard, and Weights & Biases on request."""

from __future__ import annotations

import contextlib
import math
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import tensorboardX

from trajvit_jax.run.json_lines import go_on_after, line, read_lines


class MetricLog:
    """Appends to `metrics.jsonl` and to TensorBoard's event file in a workdir.

    Args:
      step: where the run goes on; what a lost run wrote of later steps is dropped.
      without: so are the lines of that step with names that begin with this; '' = none.
      wandb: project of Weights & Biases; '' = none. The run there has the workdir's name, and a
        resumed one goes on in it: steps that a lost run had logged already are not taken there
        again, and keep what it logged.

    Raises:
      ValueError: a project, but no package `wandb`.
    """

    def __init__(
        self,
        workdir: str | os.PathLike[str],
        *,
        step: int = 0,
        without: str = "",
        wandb: str = "",
    ):
        path = Path(workdir) / "metrics.jsonl"
        with contextlib.ExitStack() as opened:  # one that fails closes those before it
            self._remote = _remote(wandb, Path(workdir)) if wandb else None
            if self._remote is not None:
                opened.callback(self._remote.finish)
            # An object without a step is of another program.
            lines = [entry for entry in read_lines(path) if entry.get("step", math.inf) <= step]
            self._lines = [one for one in lines if one["step"] < step or not _has(one, without)]
            self._file = opened.enter_context(go_on_after(path, self._lines))
            self._board = opened.enter_context(
                tensorboardX.SummaryWriter(
                    os.fspath(Path(workdir) / "tensorboard"), purge_step=step + 1
                )
            )
            self._stack = opened.pop_all()

    def values(self, name: str) -> list[float]:
        """What was logged under a name since step 0, earlier runs of the workdir included."""
        return [one[name] for one in self._lines if one.get(name) is not None]

    def __enter__(self) -> MetricLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values that stand after `step` updates; what is not finite is null."""
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        told = {name: finite.get(name) for name in values}
        entry = {"step": step, "time": round(time.time(), 3), **told}
        self._lines.append(entry)
        self._file.write(line(entry))
        self._file.flush()
        for name, value in finite.items():
            self._board.add_scalar(name, value, step)
        if self._remote is not None:
            self._remote.log(finite, step=step)


def _has(entry: Mapping[str, Any], prefix: str) -> bool:
    return bool(prefix) and any(name.startswith(prefix) for name in entry)


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
