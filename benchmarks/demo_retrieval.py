"""Retrieval of TrajViT and ViT3D on the procedural world, over seeds, against chance.

Both models train on the same clips for the same number of steps. Records are made once, and
finished runs are kept in --output, so that an interrupted benchmark goes on.

  python -m benchmarks.demo_retrieval                 # 3 seeds, about a quarter of an hour
  python -m benchmarks.demo_retrieval --quick         # one seed, few clips and steps: it runs
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from trajvit_jax.demo.chain import make_records, train_models
from trajvit_jax.demo.page import TITLES
from trajvit_jax.demo.report import ModelRow

_WAYS = ("txt2vid", "vid2txt")


@dataclasses.dataclass(frozen=True)
class Row:
    """One model over seeds; recalls in percent, txt2vid and vid2txt of every seed."""

    model: str
    clips: int
    steps: int
    tokens: float
    dropped: float
    recalls: tuple[float, ...]

    @property
    def chance(self) -> float:
        """R@5 of guessing, in percent."""
        return 100 * min(1.0, 5 / self.clips)

    @property
    def worst(self) -> float:
        """The smallest recall, as a multiple of chance."""
        return min(self.recalls) / self.chance

    def __str__(self) -> str:
        return (
            f"{self.model:8} {self.steps} steps, {self.clips} held-out clips, "
            f"{self.tokens:.1f} tokens a video ({self.dropped:.2f} dropped), "
            f"R@5 {', '.join(f'{recall:.1f}' for recall in self.recalls)}; "
            f"mean {statistics.fmean(self.recalls):.1f}, chance {self.chance:.1f}, "
            f"worst {self.worst:.1f}x chance"
        )


def measure(output: Path, seeds: int, *, quick: bool) -> list[Row]:
    """Trains and evaluates both models for every seed."""
    data, steps = "configs/tokenization/demo.py", None
    if quick:
        data, steps = f"{data}:train=32,test=16", 3
    make_records(data, world=output / "world", records=output / "records")
    runs: dict[str, list[ModelRow]] = {}
    for seed in range(seeds):
        for row in train_models("configs/demo.py", output, seed, steps):
            runs.setdefault(row.name, []).append(row)
    return [_over_seeds(rows) for rows in runs.values()]


def _over_seeds(rows: list[ModelRow]) -> Row:
    first = rows[0]
    return Row(
        model=TITLES[first.name],
        clips=int(first.results["videos"]),
        steps=first.steps,
        tokens=first.tokens,
        dropped=first.dropped,
        recalls=tuple(row.results[f"{way}_r5"] for row in rows for way in _WAYS),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; returns 0 if the bounds hold."""
    parser = parser_of(__file__, __doc__, quick="one seed, three steps")
    parser.add_argument("--seeds", type=count, default=3, help="trainings of each model (3)")
    parser.add_argument("--output", type=Path, default=None, help="folder of records and runs")
    options = parser.parse_args(arguments)
    name = "demo_retrieval_quick" if options.quick else "demo_retrieval"
    output = options.output or Path("runs") / name
    rows = measure(output, 1 if options.quick else options.seeds, quick=options.quick)
    for row in rows:
        print(row)
    trajvit, vit3d = rows
    ratio = vit3d.tokens / max(1.0, trajvit.tokens)
    print(f"TrajViT reads {ratio:.1f}x fewer tokens")
    write_json(options.json, [dataclasses.asdict(row) for row in rows])
    if options.quick:
        print("three steps teach nothing: the verdict needs the full run")
        return 0
    bounds = {
        "at least 100 held-out clips": trajvit.clips >= 100,
        "R@5 at least 5x chance, both ways, every seed": min(row.worst for row in rows) >= 5,
        "at least 3x fewer tokens": ratio >= 3,
    }
    return tell_bounds(bounds)


if __name__ == "__main__":
    run_command(main, resumes=True)
