"""Hours of the paper's runs on 8, 32 and 256 GPUs, by a formula whose inputs are printed.

  hours = steps x FLOPs of a step / (GPUs x peak x utilization) / 3600

Steps are those of the configs. FLOPs of a step are three times XLA's count of embedding its videos
and captions, unoptimized: what is measured here. Peak is one GPU's dense bfloat16 rate by its data
sheet. Utilization is what no machine here has told yet: a range is assumed, and named so.

  python -m benchmarks.cost_model
  python -m benchmarks.cost_model --utilization=0.42 --gpu='NVIDIA H200'
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from tokenization.files import write_text
from trajvit_jax import config as configs
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.run.throughput import PEAKS, work_of

RUNS = ("panda2m", "panda4m", "panda8m", "panda8m_datacomp50m", "datacomp50m")
GPUS = (8, 32, 256)


@dataclasses.dataclass(frozen=True)
class Cost:
    """One run.

    Attributes:
      name: config and arguments, without '.py'.
      steps: updates in all.
      flops: of an average step, forward and backward.
      slots: of an average step.
    """

    name: str
    steps: int
    flops: float
    slots: float

    def hours(self, gpus: int, peak: float, utilization: float) -> float:
        """On so many GPUs."""
        return self.steps * self.flops / (gpus * peak * utilization) / 3600


def cost(name: str) -> Cost:
    """What a config's run costs: streams take turns by their weights."""
    settings = configs.to_settings(ExperimentSettings, configs.load(f"configs/{name}"))
    streams = settings.data.streams
    total = sum(stream.weight for stream in streams)
    works = [(stream.weight / total, work_of(stream, settings.model)) for stream in streams]
    return Cost(
        name.replace(".py", ""),
        settings.steps,
        flops=sum(share * work.flops for share, work in works),
        slots=sum(share * work.slots for share, work in works),
    )


def table(costs: list[Cost], peak: float, utilizations: list[float]) -> str:
    """Markdown; of several utilizations, hours at the first and the last."""
    head = " | ".join(f"hours on {gpus}" for gpus in GPUS)
    lines = [
        f"| run | steps | TFLOP a step | slots a step | {head} |",
        "|---|---:|---:|---:|" + "---:|" * len(GPUS),
    ]
    for one in costs:
        cells = []
        for gpus in GPUS:
            hours = sorted({round(one.hours(gpus, peak, u), 1) for u in utilizations})
            cells.append(" to ".join(f"{value:g}" for value in hours))
        lines.append(
            f"| {one.name} | {one.steps:,} | {one.flops / 1e12:.0f} | {one.slots:,.0f} | "
            f"{' | '.join(cells)} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", default="NVIDIA H100", choices=sorted(PEAKS))
    parser.add_argument(
        "--utilization", type=float, nargs="*", default=[0.25, 0.45], help="assumed (0.25 and 0.45)"
    )
    parser.add_argument("--quick", action="store_true", help="one run, both models")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args()
    runs = RUNS[:1] if options.quick else RUNS
    names = [f"{run}.py" for run in runs]
    names += [f"{run}.py:model=vit3d" for run in runs if run != "panda8m_datacomp50m"]
    costs = [cost(name) for name in names]
    peak = PEAKS[options.gpu]
    print(f"{options.gpu}: {peak / 1e12:.0f} TFLOP/s dense bfloat16, by its data sheet")
    print(f"assumed utilization: {' and '.join(f'{u:.0%}' for u in options.utilization)}\n")
    print(table(costs, peak, options.utilization))
    if options.json:
        values = [dataclasses.asdict(one) for one in costs]
        write_text(options.json, json.dumps(values, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
