"""Hours of the paper's runs on 8, 32 and 256 GPUs, by a formula whose inputs are printed.

  compute  = FLOPs of a step / (GPUs x peak x utilization)
  exchange = 2 (GPUs - 1) / GPUs x bytes of the gradients / bandwidth
  hours    = steps x (compute and exchange, one hidden behind the other or not) / 3600
  cores    = records of a step / (records that a core reads a second x seconds of the step x hosts)

Steps are those of the configs. FLOPs of a step are three times XLA's count of embedding its videos
and captions, unoptimized; gradients are the model's parameters in float32, summed over a ring, as
`mesh.data` does it: both are counted here. Peak is one GPU's dense bfloat16 rate by its data sheet.
Assumed, and named so, is what no machine here has told yet: utilization, a range; and the bandwidth
of the ring's narrowest place, by default that of nodes of eight GPUs with eight adapters of
400 Gb/s (DGX H100, by its data sheet; NVLink inside brings 450 GB/s), of which NCCL reaches less.

Hours go from the better end (high utilization, the longer of compute and exchange hides the other)
to the worse (low utilization, one after the other). They are those of the GPUs alone. A second
table says what each host of eight must read to keep up with them, and how many cores that is at the
rate of one (`READ_A_CORE`): if all can be kept busy, of which docs/SCALING.md tells. Beside it
stand the hours of reading alone, by one process a host (`READ_A_PROCESS`): eight take an eighth.

  python -m benchmarks.cost_model
  python -m benchmarks.cost_model --paper        # every training of docs/PAPER.md
  python -m benchmarks.cost_model --utilization 0.42 --bandwidth=300 --gpu='NVIDIA H200'
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence

import jax
from flax import nnx
from tqdm import tqdm

from benchmarks.parts.arguments import positive, share
from benchmarks.parts.command import parser_of, run_command, write_json
from tokenization.markdown import markdown_table
from trajvit_jax import config as configs
from trajvit_jax.evals.paper import trained
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.run.provenance import commit
from trajvit_jax.run.throughput import PEAKS, work_of

RUNS = ("panda2m", "panda4m", "panda8m", "panda8m_datacomp50m", "datacomp50m")
# The paper's models of patches on the same records; they read images before videos.
COUNTERPARTS = {
    "panda2m": "vit3d",
    "panda4m": "vit3d",
    "panda8m": "vit3d",
    "datacomp50m": "vit",
}
GPUS = (8, 32, 256)
GPUS_A_HOST = 8
# Records that a core reads in a second, by `python -m benchmarks.input_pipeline`, one thread and
# two: 85 to 91 videos at 5ffbb65 on an idle machine, 729 to 858 images at d9360e3 beside other
# programs. More cores are extrapolated.
READ_A_CORE = {"videos": 85.0, "images": 729.0}
# And those that one process reads at most, for Python's lock: the fewest and the most. See
# docs/SCALING.md; extrapolated from two cores.
READ_A_PROCESS = {"videos": (500.0, 500.0), "images": (1600.0, 1900.0)}


@dataclasses.dataclass(frozen=True)
class Machine:
    """What one GPU brings.

    Attributes:
      peak: dense bfloat16 FLOP/s.
      utilizations: of the peak, assumed: the best and the worst.
      bandwidth: bytes a second that reach a GPU from the others, assumed.
    """

    peak: float
    utilizations: tuple[float, float]
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Cost:
    """One run.

    Attributes:
      name: config and arguments, without '.py'.
      steps: updates in all.
      flops: of an average step, forward and backward.
      slots: of an average step.
      parameters: that are trained.
      videos: of an average step.
      images: likewise.
    """

    name: str
    steps: int
    flops: float
    slots: float
    parameters: int
    videos: float = 0.0
    images: float = 0.0

    def compute(self, gpus: int, machine: Machine) -> tuple[float, float]:
        """Seconds of a step's FLOPs, at the best and the worst utilization."""
        best, worst = (self.flops / (gpus * machine.peak * share) for share in machine.utilizations)
        return best, worst

    def exchange(self, gpus: int, machine: Machine) -> float:
        """Seconds in which the float32 gradients are summed over a ring."""
        received = 2 * (gpus - 1) / gpus * 4 * self.parameters
        return received / machine.bandwidth

    def seconds(self, gpus: int, machine: Machine) -> tuple[float, float]:
        """Of a step: where one term hides the other, and where neither does."""
        (best, worst), exchange = self.compute(gpus, machine), self.exchange(gpus, machine)
        return max(best, exchange), worst + exchange

    def hours(self, gpus: int, machine: Machine) -> tuple[float, float]:
        """Of the run, likewise."""
        best, worst = self.seconds(gpus, machine)
        return self.steps * best / 3600, self.steps * worst / 3600

    def reads(self, gpus: int, machine: Machine) -> dict[str, tuple[float, float]]:
        """Videos and images that a host reads in a second, the fewest and the most."""
        best, worst = (gpus / GPUS_A_HOST * one for one in self.seconds(gpus, machine))
        records = {"videos": self.videos, "images": self.images}
        return {name: (each / worst, each / best) for name, each in records.items() if each}

    def reading_hours(self, hosts: int, processes: int = 1) -> tuple[float, float]:
        """Of the run, if it only read: at the best and the worst, by so many processes a host."""
        records = {"videos": self.videos, "images": self.images}
        best, worst = (
            sum(each / READ_A_PROCESS[name][end] for name, each in records.items())
            for end in (1, 0)
        )
        total = 3600 * hosts * processes
        return self.steps * best / total, self.steps * worst / total

    def cores(self, gpus: int, machine: Machine) -> tuple[int, int]:
        """Of a host, to read them."""
        rates = self.reads(gpus, machine).items()
        few, many = (
            math.ceil(sum(ends[end] / READ_A_CORE[name] for name, ends in rates)) for end in (0, 1)
        )
        return few, many


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
        parameters=_parameters(settings),
        videos=sum(stream.weight * stream.batch for stream in streams if stream.frames > 1) / total,
        images=sum(stream.weight * stream.batch for stream in streams if stream.frames == 1)
        / total,
    )


def _parameters(settings: ExperimentSettings) -> int:
    model = nnx.eval_shape(lambda: VideoTextModel(settings.model, rngs=nnx.Rngs(0)))
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def table(costs: Sequence[Cost], machine: Machine) -> str:
    """Markdown: of each number of GPUs both terms of a step, and the hours of the run."""
    head = ["run", "steps", "TFLOP a step", "slots a step"]
    head += [f"{what} on {gpus}" for gpus in GPUS for what in ("ms a step", "hours")]
    lines = []
    for one in costs:
        cells = [one.name, f"{one.steps:,}", f"{one.flops / 1e12:.0f}", f"{one.slots:,.0f}"]
        for gpus in GPUS:
            compute = [f"{1e3 * seconds:.3g}" for seconds in one.compute(gpus, machine)]
            exchange = f"{1e3 * one.exchange(gpus, machine):.3g}"
            cells.append(f"{_range(compute)} + {exchange}")
            cells.append(_hours(one.hours(gpus, machine)))
        lines.append(cells)
    return markdown_table(head, lines)


def reading_table(costs: Sequence[Cost], machine: Machine) -> str:
    """Markdown: what a host must read in a second for the hours of `table`, and its cores.

    Beside it the hours of a run that only reads, by one process on each of as many hosts.
    """
    head = ["run"]
    for gpus in GPUS:
        head += [f"a host reads a second, in a run on {gpus} GPUs", "its cores"]
        head += ["hours of reading alone"]
    lines = []
    for one in costs:
        cells = [one.name]
        for gpus in GPUS:
            reads = one.reads(gpus, machine).items()
            cells.append(
                ", ".join(
                    f"{_range([f'{end:,.0f}' for end in ends])} {name}" for name, ends in reads
                )
            )
            cells.append(_range([str(cores) for cores in one.cores(gpus, machine)]))
            cells.append(_hours(one.reading_hours(gpus // GPUS_A_HOST)))
        lines.append(cells)
    return markdown_table(head, lines)


def gpu_hours(names: Sequence[str], machine: Machine) -> dict[str, list[int]]:
    """Hours of all 32 GPUs together, the best and the worst, of each config."""
    return {
        name: [round(32 * hours) for hours in cost(name).hours(32, machine)]
        for name in tqdm(names, unit="run", disable=None)
    }


def _hours(ends: tuple[float, float]) -> str:
    return _range([f"{round(hours, 1):g}" for hours in ends])


def _range(values: Sequence[str]) -> str:
    return " to ".join(dict.fromkeys(values))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table."""
    parser = parser_of(__file__, __doc__, quick="one run, both models")
    parser.add_argument("--gpu", default="NVIDIA H100", choices=sorted(PEAKS), help="(NVIDIA H100)")
    parser.add_argument(
        "--utilization", type=share, nargs="+", default=[0.25, 0.45], help="assumed (0.25 and 0.45)"
    )
    parser.add_argument(
        "--bandwidth", type=positive, default=400.0, help="GB/s to a GPU, assumed (400)"
    )
    parser.add_argument(
        "--paper",
        action="store_true",
        help="GPU-hours on 32 of every row of docs/PAPER.md, as JSON",
    )
    options = parser.parse_args(arguments)
    used = (max(options.utilization), min(options.utilization))
    machine = Machine(PEAKS[options.gpu], used, 1e9 * options.bandwidth)
    if options.paper:
        hours = gpu_hours(trained(), machine)
        print(json.dumps(hours, indent=1))
        write_json(options.json, hours)
        return 0
    runs = RUNS[:1] if options.quick else RUNS
    names = [f"{run}.py" for run in runs]
    names += [f"{run}.py:model={other}" for run, other in COUNTERPARTS.items() if run in runs]
    costs = [cost(name) for name in names]
    print(f"{options.gpu}: {machine.peak / 1e12:.0f} TFLOP/s dense bfloat16, by its data sheet")
    print(
        f"assumed: {used[0]:.0%} to {used[1]:.0%} of it, {options.bandwidth:g} GB/s between GPUs; "
        "ms a step are compute + exchange\n"
    )
    print(table(costs, machine))
    rates = " or ".join(f"{rate:g} {name}" for name, rate in READ_A_CORE.items())
    print(f"\na host of {GPUS_A_HOST} GPUs must read so much; a core reads {rates} a second\n")
    print(reading_table(costs, machine))
    print(f"\ncommit {commit() or 'unknown'}")
    values = {
        "commit": commit(),
        "machine": dataclasses.asdict(machine),
        "runs": [dataclasses.asdict(one) for one in costs],
    }
    write_json(options.json, values)
    return 0


if __name__ == "__main__":
    run_command(main)
