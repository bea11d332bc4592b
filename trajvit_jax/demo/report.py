"""The demo's report: one HTML page and one text table."""

from __future__ import annotations

import dataclasses
import html
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenization.explore.items import Item
from tokenization.explore.page import render_fragment
from tokenization.extract import Summary
from tokenization.files import write_text
from trajvit_jax.models.flops import ForwardCost

TITLES = {"trajvit": "TrajViT", "vit3d": "ViT3D"}
_COLOURS = {"trajvit": "#1d6fd8", "vit3d": "#d8741d"}
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
    losses: Sequence[tuple[int, float]]

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
        rows = [row.cells() for row in self.rows]
        widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
        lines = ["  ".join(key.ljust(width) for key, width in widths.items())]
        lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in rows]
        return "\n".join([*lines, "", *(f"  {line}" for line in LEGEND), "", self.protocol()])

    def protocol(self) -> str:
        """How the numbers came about."""
        row = self.rows[0]
        return (
            f"Zero-shot retrieval on {self.test.videos} held-out clips of the procedural world, "
            f"one caption each, none of them among the {self.train.videos} training captions; "
            f"R@5 of chance is {self.chance:.1f}%. Both models: {row.steps} steps of "
            f"{row.batch} clips, the same clips, pixels and text encoder, one seed."
        )


def read_losses(workdir: Path) -> list[tuple[int, float]]:
    """(step, loss) of a run's metrics.jsonl."""
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


def loss_curves(rows: Sequence[ModelRow], width: int = 640, height: int = 220) -> str:
    """Training losses as an SVG."""
    points = [point for row in rows for point in row.losses]
    last = max(step for step, _ in points)
    top = max(loss for _, loss in points) * 1.05
    lines = []
    for row in rows:
        path = " ".join(
            f"{40 + step / last * (width - 50):.1f},{height - 38 - loss / top * (height - 48):.1f}"
            for step, loss in row.losses
        )
        lines.append(
            f'<polyline fill="none" stroke="{_COLOURS[row.name]}" stroke-width="2" '
            f'points="{path}"><title>{TITLES[row.name]}</title></polyline>'
        )
    ticks = [
        f'<text x="36" y="{height - 34 - part * (height - 48):.0f}" text-anchor="end">'
        f"{part * top:.1f}</text>"
        for part in (0, 0.5, 1)
    ]
    ticks += [
        f'<text x="{40 + part * (width - 50):.0f}" y="{height - 22}" text-anchor="middle">'
        f"{part * last:.0f}</text>"
        for part in (0, 0.5, 1)
    ]
    ticks.append(
        f'<text x="{40 + (width - 50) / 2:.0f}" y="{height - 6}" text-anchor="middle">step</text>'
    )
    legend = "".join(
        f'<tspan dx="12" style="fill: {_COLOURS[row.name]}">{TITLES[row.name]}</tspan>'
        for row in rows
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="Training loss by step">'
        f"{''.join(ticks)}{''.join(lines)}"
        f'<text x="{width - 12}" y="16" text-anchor="end">{legend}</text></svg>'
    )


def write_report(path: Path, report: Report) -> Path:
    """Writes the page; a reader never sees half of it."""
    rows = [row.cells() for row in report.rows]
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    fewer = report.rows[1].tokens / max(1.0, report.rows[0].tokens)
    template = (
        importlib.resources.files("trajvit_jax.demo").joinpath("report.html").read_text("utf-8")
    )
    page = string.Template(template).substitute(
        fewer=f"{fewer:.1f}",
        head=head,
        body=body,
        legend="<br>".join(map(html.escape, LEGEND)),
        protocol=html.escape(report.protocol()),
        extraction=html.escape(str(report.test)),
        curves=loss_curves(report.rows),
        real=render_fragment(report.real),
        world=render_fragment(report.world),
    )
    write_text(path, page)
    return path
