"""How long a step that trains waits for data that no step has read before: the demo's models.

`benchmarks.input_pipeline` prints it. The run is `python -m trajvit_jax.main` with configs/demo.py
and `data.cache=0`: every video is read, decoded and resized whenever a step wants it, while the
step computes on the same cores.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts.quick_programs import quick_programs

ROOT = Path(__file__).parents[2]
BOUND = 0.05  # of a step
UNSETTLED = 10  # steps at first, which read what was loaded while the step compiled


@dataclasses.dataclass(frozen=True)
class Waits:
    """Of the steps after the first `UNSETTLED`.

    Attributes:
      model: name.
      steps: that count.
      step: seconds of one, on average.
      share: of these seconds, those in which the host waited for data.
      worst: share of the step that waited longest.
    """

    model: str
    steps: int
    step: float
    share: float
    worst: float

    @property
    def holds(self) -> bool:
        """Whether the steps wait for less than the bound."""
        return self.share < BOUND

    def __str__(self) -> str:
        return (
            f"{self.model:8} {self.steps:5} steps of {self.step:6.3f} s: {self.share:6.2%} of the "
            f"time waiting for data, {self.worst:.1%} of the worst step"
        )


def waits(model: str, lines: Sequence[dict[str, float]], batch: int) -> Waits:
    """Of the lines of a run's metrics, one a step of so many videos.

    Raises:
      ValueError: no line after the first `UNSETTLED` steps tells of rates.
    """
    told = [line for line in lines if line["step"] > UNSETTLED and "data_wait" in line]
    if not told:
        raise ValueError(f"no step after {UNSETTLED} told how long it waited; train longer")
    times = [batch / line["videos_a_second"] for line in told]
    waited = sum(time * line["data_wait"] for time, line in zip(times, told, strict=True))
    worst = max(line["data_wait"] for line in told)
    return Waits(model, len(told), sum(times) / len(times), waited / sum(times), worst)


def measure(
    records: Path, frames: int, model: str, steps: int, *, batch: int = 32, quick: bool = False
) -> Waits:
    """Trains a model of the demo for some steps, in a process of its own.

    Args:
      records: folder whose split `train` is read; `test` is evaluated at the end.
      frames: of a record.
      model: 'trajvit' or 'vit3d'.
      steps: to train; the first `UNSETTLED` do not count.
      batch: videos of a step.
      quick: compile quickly, for steps that are slower than they would be.

    Raises:
      RuntimeError: the run ended with an error; with the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "data.cache": 0,
            "data.batch": batch,
            "log_every": 1,
            "checkpoint_every": steps,
        }
        command = [
            *(sys.executable, "-m", "trajvit_jax.main", f"--workdir={folder}"),
            f"--config={ROOT}/configs/demo.py:"
            f"model={model},records={records.resolve()},frames={frames},steps={steps}",
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=quick_programs() if quick else None,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command} failed:\n{done.stderr[-2000:]}")
        lines = (Path(folder) / "metrics.jsonl").read_text("utf-8").splitlines()
    return waits(model, [json.loads(line) for line in lines], batch)
