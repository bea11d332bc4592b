"""The demo's report: one HTML page and one text table."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenization.explore.items import Item
from tokenization.explore.page import render_fragment
from tokenization.extract import Summary
from trajvit_jax.demo.page import TITLES, Points, html_table, line_chart, text_table, write_page
from trajvit_jax.models.flops import ForwardCost

_DIRECTIONS = ("txt2vid", "vid2txt")
LEGEND = (
    "tokens: that the encoder reads of a video, its CLS aside, mean of the held-out clips",
    "dropped: trajectories of a video for which the model has no slot, mean",
    "GFLOP: one video from pixels to its embedding, by XLA's cost analysis; in the ViT: of these",
    "seconds a step: median, without compiling and waiting for data",
    "R@k: percent of the queries whose match is among the first k; txt2vid: captions find videos",
)


@dataclasses.dataclass(frozen=True)
class ModelRow:
    """What was measured of one model.

    Attributes:
      results: of `trajvit_jax.train.train`.
      tokens: mean a held-out video, CLS aside.
      dropped: trajectories that found no slot, mean a held-out video.
      losses: (step, loss) pairs of the log.
    """

    name: str
    results: Mapping[str, float]
    cost: ForwardCost
    tokens: float
    dropped: float
    steps: int
    batch: int
    losses: Points

    def cells(self) -> dict[str, str]:
        """Column title -> text."""
        cells = {
            "model": TITLES[self.name],
            "tokens": f"{self.tokens:.2f}",
            "dropped": f"{self.dropped:.2f}",
            "GFLOP": f"{self.cost.total / 1e9:.2f}",
            "in the ViT": f"{self.cost.transformer / 1e9:.2f}",
            "M parameters": f"{self.results['parameters'] / 1e6:.2f}",
            "seconds a step": f"{self.results['seconds_a_step']:.2f}",
        }
        for direction in _DIRECTIONS:
            for k in (1, 5):
                cells[f"{direction} R@{k}"] = f"{self.results[f'{direction}_r{k}']:.1f}"
        return cells


@dataclasses.dataclass(frozen=True)
class Report:
    """Everything that the page shows."""

    rows: Sequence[ModelRow]
    train: Summary
    test: Summary
    real: Sequence[Item]
    world: Sequence[Item]

    @property
    def chance(self) -> float:
        """R@5 of guessing, in percent."""
        return 100 * min(1.0, 5 / self.rows[0].results["videos"])

    def table(self) -> str:
        """The comparison as text."""
        table = text_table([row.cells() for row in self.rows])
        return "\n".join([table, "", *(f"  {line}" for line in LEGEND), "", self.protocol()])

    def protocol(self) -> str:
        """How the numbers came about."""
        row = self.rows[0]
        return (
            f"Zero-shot retrieval on {self.test.videos} held-out clips of the procedural world, "
            f"one caption each, none of them among the {self.train.videos} training captions; "
            f"R@5 of chance is {self.chance:.1f}%. Both models: {row.steps} steps of "
            f"{row.batch} clips, the same clips, pixels and text encoder, one seed."
        )


def write_report(path: Path, report: Report) -> Path:
    """Writes the page; a reader never sees half of it."""
    patches = report.rows[1].tokens
    fewer = patches / max(1.0, report.rows[0].tokens)
    template = (
        importlib.resources.files("trajvit_jax.demo").joinpath("report.html").read_text("utf-8")
    )
    body = string.Template(template).substitute(
        table=html_table([row.cells() for row in report.rows]),
        legend="<br>".join(map(html.escape, LEGEND)),
        protocol=html.escape(report.protocol()),
        extraction=html.escape(str(report.test)),
        counted=html.escape(
            f"The heading's number is that of the models below: tokens of a held-out clip, against "
            f"the {patches:,.0f} space-time patches that ViT3D reads of it at the same small size. "
            "Beside a clip, and in the last lines of the extraction, trajectories are counted "
            "against the 2x16x16 patches of the same frames at 224x224, the paper's size: there "
            "are more of these."
        ),
        curves=line_chart({row.name: row.losses for row in report.rows}, "Training loss"),
        real=render_fragment(report.real),
        world=render_fragment(report.world),
    )
    return write_page(
        path,
        title="trajvit_jax: the demo's report",
        heading=f"One token per trajectory: {fewer:.1f}x fewer tokens than space-time patches",
        body=body,
    )
