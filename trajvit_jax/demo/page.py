"""What reports are made of: tables, charts of lines, and the page around them."""

from __future__ import annotations

import html
import importlib.resources
import json
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenization.files import write_text

# Every model of the paper's tables, in their order.
TITLES = {
    "trajvit": "TrajViT",
    "vit3d": "ViT3D",
    "token_learner": "TokenLearner",
    "vivit": "ViViT",
    "automerge": "AutoMerge",
    "rlt": "RLT",
    "tome": "ToMe",
    "segmentation_only": "Segmentation only",
    "tracking_only": "Tracking only",
    "vit": "ViT",
}
_COLOURS = {
    "trajvit": "#1d6fd8",
    "vit3d": "#d8741d",
    "token_learner": "#2a9d5c",
    "vivit": "#a24bd1",
    "automerge": "#c0392b",
    "rlt": "#0f8f9c",
    "tome": "#b8860b",
    "segmentation_only": "#7a6a58",
    "tracking_only": "#d14b8f",
    "vit": "#555b66",
}

Points = Sequence[tuple[int, float]]


def text_table(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows of column title -> text, in columns; at least one row, all with the same titles."""
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    lines = ["  ".join(key.ljust(width) for key, width in widths.items())]
    lines += ["  ".join(row[key].ljust(width) for key, width in widths.items()) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def html_table(rows: Sequence[Mapping[str, str]]) -> str:
    """The same as HTML; it scrolls where the page is narrower."""
    head = "".join(f"<th>{html.escape(key)}</th>" for key in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(value)}</td>" for value in row.values()) + "</tr>"
        for row in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def read_metric(workdir: Path, name: str) -> list[tuple[int, float]]:
    """(step, value) of a run's metrics.jsonl, where the value was logged and finite."""
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    # A step may have been evaluated twice, as after an interruption, or where the results of a
    # finished run were removed: its last value counts.
    found = {entry["step"]: entry[name] for entry in entries if entry.get(name) is not None}
    return sorted(found.items())


def line_chart(
    lines: Mapping[str, Points],
    what: str,
    *,
    along: str = "step",
    width: int = 640,
    height: int = 220,
) -> str:
    """Values by step as an SVG.

    Args:
      lines: the points of each model, by its name.
      what: the values are, for readers who hear the page.
      along: what is counted from left to right.
      width: of the picture's own coordinates.
      height: likewise.
    """
    points = [point for line in lines.values() for point in line]
    last = max(step for step, _ in points)
    top = max(1e-9, *(value for _, value in points)) * 1.05
    drawn = []
    for name, line in lines.items():
        path = " ".join(
            f"{40 + step / last * (width - 50):.1f},{height - 38 - value / top * (height - 48):.1f}"
            for step, value in line
        )
        drawn.append(
            f'<polyline fill="none" stroke="{_COLOURS[name]}" stroke-width="2" '
            f'points="{path}"><title>{TITLES[name]}</title></polyline>'
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
        f'<text x="{40 + (width - 50) / 2:.0f}" y="{height - 6}" text-anchor="middle">'
        f"{html.escape(along)}</text>"
    )
    legend = "".join(
        f'<tspan dx="12" style="fill: {_COLOURS[name]}">{TITLES[name]}</tspan>' for name in lines
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{html.escape(what)} by '
        f'{html.escape(along)}">'
        f"{''.join(ticks)}{''.join(drawn)}"
        f'<text x="{width - 12}" y="16" text-anchor="end">{legend}</text></svg>'
    )


def write_page(path: Path, *, title: str, heading: str, body: str) -> Path:
    """Writes a page; a reader never sees half of it.

    Args:
      path: of the file.
      title: of the document, plain text.
      heading: of the page, plain text.
      body: HTML below the heading.
    """
    shell = importlib.resources.files("trajvit_jax.demo").joinpath("page.html").read_text("utf-8")
    page = string.Template(shell).substitute(
        title=html.escape(title), heading=html.escape(heading), body=body
    )
    write_text(path, page)
    return path
