"""What more frames cost each model: tokens, FLOPs, time and memory of a forward pass (Figure 6).

FLOPs are those of the paper's size (ViT-L, 224 pixels), by formula. Time and memory are measured
at the size of configs/comparison.py (width 192, 112 pixels), of one clip, in float32, which a GPU
multiplies as such, too: memory is what XLA's program needs beside weights and pixels. Trajectories
are taken to be 150 (at the small size 50) whatever the number of frames, of which a frame shows
40%: so many segments a frame has segmentation only. Tracking only follows the squares of 16 pixels
of one frame. Making trajectories is not in here, and RLT finds nothing that repeats. Writes
docs/FRAMES.md and docs/frames.svg, where it is of all models and lengths.

  python -m benchmarks.frames
  python -m benchmarks.frames --flops      # tokens and FLOPs alone: seconds; keeps measured pages
  python -m benchmarks.frames --quick      # two models, two lengths; no page
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx
from tqdm import tqdm

from benchmarks.parts.arguments import count, counts, some_of
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from benchmarks.parts.table_text import read_block, replace_block
from benchmarks.parts.timing import Contender, race
from tokenization.files import write_text
from tokenization.markdown import markdown_table
from trajvit_jax import config as configs
from trajvit_jax.demo.page import TITLES, line_chart, text_table
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.costs import cost_of, tokens_of
from trajvit_jax.models.settings import FED_TRAJVIT, NAMES, ModelSettings
from trajvit_jax.models.summary import with_frames
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.run.provenance import commit

MODELS = (*(name for name in NAMES if name != "vit"), *FED_TRAJVIT)
FRAMES = (16, 32, 64, 128)
PAPER, SMALL = "configs/models.py:trajectories=150", "configs/comparison.py:tokens=128"
SMALL_TRAJECTORIES = 50
_STYLE = "<style>text { font: 11px sans-serif; fill: #888 }</style>"


@dataclasses.dataclass(frozen=True)
class Cost:
    """A model at a number of frames.

    Attributes:
      model: its name.
      frames: of a clip.
      tokens: that the first layer reads at the paper's size, and that are left after the last, CLS
        aside.
      gflops: forward, at the paper's size; by formula.
      milliseconds: of a forward pass at the small size: median over rounds; None = not timed.
      megabytes: that it needs beside weights and pixels; None likewise.
    """

    model: str
    frames: int
    tokens: tuple[int, int]
    gflops: float
    milliseconds: float | None = None
    megabytes: float | None = None

    def cells(self) -> dict[str, str]:
        """Column title -> text."""
        first, last = self.tokens
        return {
            "model": TITLES[self.model],
            "frames": str(self.frames),
            "tokens": f"{first:,}" if first == last else f"{first:,} to {last:,}",
            "GFLOP": f"{self.gflops:,.0f}",
            "ms (small)": _whole(self.milliseconds),
            "MB (small)": _whole(self.megabytes),
        }


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def paper_settings() -> ModelSettings:
    """ViT-L at 224 pixels."""
    return configs.to_settings(ModelSettings, configs.load(PAPER).model)


def small_settings() -> ModelSettings:
    """Those of the comparison."""
    model = configs.to_settings(ExperimentSettings, configs.load(SMALL)).model
    own = dataclasses.replace(model.trajvit, max_trajectories=SMALL_TRAJECTORIES)
    # One clip has a row of its own.
    rlt = dataclasses.replace(model.rlt, group=1, slots=0)
    # Compiled once for all layers.
    encoder = dataclasses.replace(model.encoder, unroll=1)
    return dataclasses.replace(model, encoder=encoder, trajvit=own, rlt=rlt)


def count_flops(names: Sequence[str], frames: Sequence[int]) -> list[Cost]:
    """Tokens and FLOPs at the paper's size, by formula."""
    paper, found = paper_settings(), []
    for name in names:
        for length in frames:
            own = with_frames(paper, name, length)
            flops, tokens = cost_of(own).total, tokens_of(own)
            assert flops is not None  # the paper's models have formulas
            both = (tokens.first - 1, tokens.last - 1)
            found.append(Cost(name, length, both, flops / 1e9))
    return found


def measure(names: Sequence[str], frames: Sequence[int], rounds: int) -> list[Cost]:
    """The same with time and memory at the small size, all models and lengths in turn."""
    counted, small = count_flops(names, frames), small_settings()
    with jax.default_matmul_precision("highest"):  # a GPU would take TF32 for float32
        contenders = [
            _contender(with_frames(small, one.model, one.frames), one.model)
            for one in tqdm(counted, desc="compile", unit="program", leave=False, disable=None)
        ]
    return [
        dataclasses.replace(
            one, milliseconds=1e3 * timing.median, megabytes=(timing.memory or 0) / 1e6
        )
        for one, timing in zip(counted, race(contenders, rounds), strict=True)
    ]


def _contender(settings: ModelSettings, name: str) -> Contender:
    model = VideoTextModel(settings, rngs=nnx.Rngs(0))
    keys = jax.random.split(jax.random.key(0))
    size = (1, settings.frames, settings.image_size, settings.image_size, 3)
    video = jax.random.randint(keys[0], size, 0, 256).astype(jnp.uint8)
    grid = (1, settings.frames, settings.grid, settings.grid)
    labels = jax.random.randint(keys[1], grid, 1, settings.trajvit.max_trajectories + 1)
    graph, state = nnx.split(model)

    def embed(state: nnx.State, video: jax.Array, labels: jax.Array) -> jax.Array:
        return nnx.merge(graph, state).embed_video(video, labels)

    program = jax.jit(embed).lower(state, video, labels).compile()
    memory = program.memory_analysis()
    return Contender(
        f"{settings.frames} frames",
        name,
        _waiting(program, state, video, labels),
        memory=memory.temp_size_in_bytes if memory else None,
    )


def _waiting(program: Callable, *arguments: object) -> Callable[[], object]:
    return lambda: jax.block_until_ready(program(*arguments))


def _protocol(rounds: int) -> str:
    """What the figures of time are of."""
    device = jax.devices()[0]
    cores = f" ({os.cpu_count()} cores)" if device.platform == "cpu" else ""
    return (
        f"Median of {rounds} rounds, all models in turn, on {device.device_kind}{cores}, "
        f"at {commit()}."
    )


def growth(costs: Sequence[Cost], name: str, what: str) -> float:
    """How many times more the longest clips cost a model than the shortest."""
    own = sorted((one for one in costs if one.model == name), key=lambda one: one.frames)
    return getattr(own[-1], what) / getattr(own[0], what)


def verdict(costs: Sequence[Cost]) -> dict[str, bool]:
    """What Figure 6 says, and whether it holds; of time and memory where they were measured."""
    most = max(one.frames for one in costs)
    longest = {one.model: one for one in costs if one.frames == most}
    ours, patches = longest["trajvit"], longest["vit3d"]
    least = min(one.gflops for one in longest.values())
    found = {f"TrajViT's FLOPs at {most} frames are the least": ours.gflops == least}
    if ours.milliseconds is None or patches.milliseconds is None:
        return found
    slower = growth(costs, "trajvit", "milliseconds") < growth(costs, "vit3d", "milliseconds")
    return found | {
        f"TrajViT is faster than ViT3D at {most} frames": ours.milliseconds < patches.milliseconds,
        f"TrajViT needs less memory than ViT3D at {most} frames": (ours.megabytes or 0)
        < (patches.megabytes or 0),
        "TrajViT's time grows more slowly than ViT3D's": slower,
    }


def charts(costs: Sequence[Cost]) -> str:
    """FLOPs, time and memory by frames, one under the other, as one SVG."""
    panels, titles = (
        [],
        {
            "gflops": "GFLOP, forward, ViT-L at 224 pixels",
            "milliseconds": "milliseconds, forward, width 192 at 112 pixels",
            "megabytes": "megabytes of it",
        },
    )
    shown = [what for what in titles if getattr(costs[0], what) is not None]
    for place, what in enumerate(shown):
        title = titles[what]
        lines: dict[str, list[tuple[int, float]]] = {}
        for one in costs:
            lines.setdefault(one.model, []).append((one.frames, getattr(one, what)))
        chart = line_chart(lines, title, along="frames", width=760, height=240)
        chart = chart.replace("<svg ", f'<svg y="{260 * place}" width="760" height="240" ', 1)
        panels.append(f'<text x="40" y="{260 * place + 30}">{title}</text>{chart}')
    height = 260 * len(shown)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 {height}" width="760" '
        f'height="{height}">{_STYLE}{"".join(panels)}</svg>\n'
    )


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows as a table in Markdown; the first column to the left."""
    head = list(rows[0])
    return markdown_table(head, ([row[key] for key in head] for row in rows))


def not_for_page(costs: Sequence[Cost], page: Path) -> str | None:
    """Why a page keeps its table, which these costs would make poorer; None = they may stand there.

    Args:
      costs: that were found.
      page: with the table of an earlier run.
    """
    if not {(one.model, one.frames) for one in costs} >= set(itertools.product(MODELS, FRAMES)):
        return "it is of all models and lengths, and this run is not"
    rows = [line for line in read_block(page, "frames").splitlines() if line.startswith("|")][2:]
    if costs[0].milliseconds is None and not all(row.endswith("| - | - |") for row in rows):
        return "it has times and memory, which --flops does not measure"
    return None


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = parser_of(__file__, __doc__, quick="two models, two lengths; no page")
    parser.add_argument("--flops", action="store_true", help="no time, no memory")
    parser.add_argument(
        "--models", type=some_of(MODELS), default=MODELS, help=f"of {','.join(MODELS)} (all)"
    )
    parser.add_argument("--frames", type=counts, default=FRAMES, help="of the clips (16,32,64,128)")
    parser.add_argument("--rounds", type=count, default=7, help="runs of each (7)")
    parser.add_argument(
        "--page", type=Path, default=Path("docs/FRAMES.md"), help="(docs/FRAMES.md)"
    )
    parser.add_argument("--compiled", type=Path, help="folder for compiled programs, to go on with")
    options = parser.parse_args(arguments)
    if options.quick:
        options.models, options.frames = ["trajvit", "vit3d"], [16, 32]
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if its bounds hold or it was quick, 1 if not."""
    options = parse(arguments)
    if options.compiled:
        jax.config.update("jax_compilation_cache_dir", str(options.compiled.absolute()))
    if options.flops:
        costs, where = count_flops(options.models, options.frames), ""
    else:
        costs = measure(options.models, options.frames, options.rounds)
        where = f"\n\n{_protocol(options.rounds)}"
    rows = [one.cells() for one in costs]
    print(text_table(rows) + where)
    write_json(options.json, [dataclasses.asdict(one) for one in costs])
    if options.quick or not {"trajvit", "vit3d"} <= set(options.models):
        return 0
    if why := not_for_page(costs, options.page):
        print(f"{options.page} stays as it is: {why}")
    else:
        replace_block(options.page, "frames", markdown(rows) + where)
        write_text(options.page.with_name("frames.svg"), charts(costs))
    bounds = verdict(costs)
    return tell_bounds(bounds)


if __name__ == "__main__":
    run_command(main)
