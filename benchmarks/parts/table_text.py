"""Finished rows as a table: recalls with errors, differences, tokens and costs."""

from __future__ import annotations

import collections
import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.parts.paired import Answers, Difference, Mean, bootstrap, over_seeds
from benchmarks.parts.table_clips import check_clips
from benchmarks.parts.table_costs import StepCost
from benchmarks.parts.table_rows import WAYS, Finished, Ledger, Row
from tokenization.files import write_text
from tokenization.markdown import markdown_table
from trajvit_jax.models.costs import cost_of
from trajvit_jax.models.flops import count_forward
from trajvit_jax.models.settings import ModelSettings

SOURCES = ("exercises", "panda", "world")
AVERAGED = ("exercises", "world")
"""Sources with enough held-out clips to tell anything; Panda's 26 do not."""
K = 5
COVERED = "difference (95%, clips and seeds)"
NOTHING = "(no row is finished)"


@dataclasses.dataclass(frozen=True)
class Like:
    """A difference from the reference model of the most similar cost.

    Attributes:
      difference: of the mean over `AVERAGED`.
      gflops: of that model.
    """

    difference: Difference
    gflops: float


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table over its finished seeds.

    Attributes:
      title: of the row.
      seeds: how many.
      commits: of the code, of any seed.
      devices: kinds of each seed, joined by '+' where there are several.
      alike: whether all seeds read the same pixels and labels.
      parameters: of video and text side.
      tokens: mean of the held-out clips, before the first layer and after the last.
      dropped: percent of training's tokens that had no slot.
      gflops: of one clip with so many tokens, forward.
      step: what a training step costs; None = not measured.
      recalls: 'source way' -> R@5 in percent.
      average: of `AVERAGED`, both ways.
      differences: of this average ('mean'), and of each source in it where there are several, from
        the reference row's; none for the reference itself.
      like: the same of the average, from the reference of like cost; None for references.
      learned: steps -> R@5 of the source that training evaluates on.
      loss: of the last steps.
    """

    title: str
    seeds: int
    commits: tuple[str, ...]
    devices: tuple[str, ...]
    alike: bool
    parameters: int
    tokens: tuple[float, float]
    dropped: float
    gflops: float
    step: StepCost | None
    recalls: Mapping[str, Mean]
    average: Mean
    differences: Mapping[str, Difference]
    like: Like | None
    learned: Mapping[int, Mean]
    loss: Mean


def lines_of(
    rows: Sequence[Row],
    titles: Mapping[str, str],
    seeds: Sequence[int],
    ledger: Ledger,
    costs: Mapping[str, StepCost],
    *,
    reference: str,
    like: Sequence[str] = (),
) -> list[Line]:
    """A line of each row that has a finished seed.

    Args:
      rows: of the table, finished or not.
      titles: of the rows.
      seeds: that count.
      ledger: with what is finished.
      costs: of steps, by name of the row.
      reference: name of the row that differences are from; there are none until it is finished.
      like: names of rows of several costs; others are compared with that of the nearest GFLOP.

    Raises:
      ValueError: rows of other clips, see `table_clips.check_clips`.
    """
    by_row = {row.name: ledger.of(row, seeds) for row in rows}
    by_row = {name: finished for name, finished in by_row.items() if finished}
    check_clips([(one.name, one.clips) for finished in by_row.values() for one in finished])
    gflops = {
        row.name: flops(row.settings(0).model, by_row[row.name][0].tokens[0]) / 1e9
        for row in rows
        if row.name in by_row
    }
    # Before all of them are there, the nearest is near to nothing.
    references = list(like) if set(like) <= set(by_row) else []
    found = []
    for row in rows:
        if row.name not in by_row:
            continue
        own, finished, nearest = gflops[row.name], by_row[row.name], None
        if references and row.name not in like:
            near = min(references, key=lambda name: abs(math.log(gflops[name] / own)))
            nearest = Like(_differences(finished, by_row[near])["mean"], gflops[near])
        cost = costs.get(row.name)
        compared = row.name != reference and reference in by_row
        found.append(
            Line(
                title=titles[row.name],
                seeds=len(finished),
                commits=tuple(sorted({commit for one in finished for commit in one.commits})),
                devices=tuple("+".join(one.devices) for one in finished),
                alike=all(one.contents == finished[0].contents for one in finished),
                parameters=finished[0].parameters,
                tokens=finished[0].tokens,
                dropped=float(np.mean([one.dropped for one in finished])),
                gflops=own,
                step=cost if cost and cost.made_of == row.made_of() else None,
                recalls=_recalls(finished),
                average=over_seeds([_average(one) for one in finished]),
                differences=_differences(finished, by_row[reference]) if compared else {},
                like=nearest,
                learned=_learned(finished),
                loss=over_seeds([one.loss for one in finished]),
            )
        )
    return found


def flops(model: ModelSettings, tokens: float) -> float:
    """FLOPs of one clip, forward, with as many tokens as clips have on average.

    By formula where there is one (`models.costs`), else by XLA's count.
    """
    most = max(1, round(tokens))
    if model.name == "trajvit":
        most = max(1, round(tokens / model.trajvit.tokens_each))
        own = dataclasses.replace(model.trajvit, max_trajectories=most)
        model = dataclasses.replace(model, trajvit=own)
    if model.name == "rlt":
        # As if a clip had a row of just its tokens: what sharing rows comes to at best.
        cells = (model.image_size // model.vit3d.patch) ** 2
        own = dataclasses.replace(model.rlt, group=1, slots=max(most, cells) + 1)
        model = dataclasses.replace(model, rlt=own)
    formula = cost_of(model).total
    return count_forward(model).total if formula is None else formula


def _average(row: Finished) -> float:
    pairs = [(source, way) for source in _averaged(row) for way in WAYS]
    return float(np.mean([row.recall(source, way, K) for source, way in pairs]))


def _averaged(row: Finished) -> list[str]:
    return [source for source in AVERAGED if source in row.ranks]


def _recalls(rows: Sequence[Finished]) -> dict[str, Mean]:
    return {
        f"{source} {way}": over_seeds([row.recall(source, way, K) for row in rows])
        for source in rows[0].ranks
        for way in WAYS
    }


def _learned(rows: Sequence[Finished]) -> dict[int, Mean]:
    """Of steps after which every seed was evaluated."""
    curves = [dict(row.learned) for row in rows]
    steps = set.intersection(*(set(curve) for curve in curves))
    return {step: over_seeds([curve[step] for curve in curves]) for step in sorted(steps)}


def _differences(rows: Sequence[Finished], first: Sequence[Finished]) -> dict[str, Difference]:
    ours, others = (
        {source: _answers(of, source) for source in _averaged(rows[0])} for of in (rows, first)
    )
    found = {"mean": bootstrap(list(ours.values()), list(others.values()))}
    if len(ours) == 1:
        return found
    return {name: bootstrap([ours[name]], [others[name]]) for name in ours} | found


def _answers(rows: Sequence[Finished], source: str) -> Answers:
    hits, queries = zip(*(row.by_clip(source, K) for row in rows), strict=True)
    return Answers(np.stack(hits, axis=1), queries[0])


def table(
    lines: Sequence[Line],
    what: str = "model",
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """The lines as a table in Markdown, and the commits that they were trained at.

    Args:
      lines: at least one.
      what: the first column holds.
      columns: more cells of lines, by title and column; they come after the first.
    """
    if not lines:
        return NOTHING
    commits = sorted({commit for line in lines for commit in line.commits})
    more, timed = columns or {}, any(line.step for line in lines)
    cells = [
        {what: line.title} | more.get(line.title, {}) | _cells(line, timed=timed) for line in lines
    ]
    text = _aligned(cells, what)
    runs = collections.Counter(device for line in lines for device in line.devices)
    devices = ", ".join(f"{count} on {device}" for device, count in sorted(runs.items()))
    said = f"Trained at {', '.join(commits)}; runs: {devices}."
    if mixed := [line.title for line in lines if not line.alike]:
        said += f" Seeds read records that differ in pixels or labels: {', '.join(mixed)}."
    return f"{text}\n\n{said}"


def curves(lines: Sequence[Line], what: str = "model") -> str:
    """What each row had learned by how many steps, as a table in Markdown."""
    if not lines:
        return NOTHING
    return _aligned(
        [
            {what: line.title}
            | {f"after {step}": str(recall) for step, recall in line.learned.items()}
            | {"last loss": f"{line.loss.value:.2f}"}
            for line in lines
        ],
        what,
    )


def _aligned(rows: Sequence[Mapping[str, str]], what: str) -> str:
    """Cells by column, columns aligned for those who read the table as text."""
    names = list(dict.fromkeys([what, *(name for row in rows for name in row)]))
    cells = [[row.get(name, "") for name in names] for row in rows]
    return markdown_table(names, cells, padded=True)


def _cells(line: Line, *, timed: bool) -> dict[str, str]:
    """Column title -> text; `timed`: with those of a step's costs."""
    first, last = line.tokens
    tokens = f"{first:.0f}" if first == last else f"{first:.0f} to {last:.0f}"
    cells = {
        "M parameters": f"{line.parameters / 1e6:.2f}",
        "tokens": tokens,
        "% dropped": f"{line.dropped:.1f}",
        "GFLOP": f"{line.gflops:.2f}",
    }
    if timed:
        cells["s a step"] = f"{line.step.seconds:.2f}" if line.step else "-"
        cells["MB a step"] = f"{line.step.megabytes:.0f}" if line.step else "-"
    cells |= {name: str(recall) for name, recall in line.recalls.items()}
    cells["mean"] = str(line.average)
    cells |= {f"{name}: {COVERED}": str(own) for name, own in line.differences.items()}
    if line.like:
        cells["mean: at like GFLOP"] = f"{line.like.difference}, of {line.like.gflops:.2f} GFLOP"
    return cells | {"seeds": str(line.seeds)}


def read_block(path: Path, name: str) -> str:
    """The text between the marks of this name in a page.

    Raises:
      ValueError: a page without the two marks.
    """
    page = path.read_text("utf-8")
    return page[slice(*_place(path, page, name))].strip()


def replace_block(path: Path, name: str, text: str) -> None:
    """Puts a text between the marks of this name in a page; a reader never sees half of it.

    Raises:
      ValueError: a page without the two marks.
    """
    page = path.read_text("utf-8")
    begin, end = _place(path, page, name)
    write_text(path, f"{page[:begin]}\n\n{text}\n\n{page[end:]}")


def _place(path: Path, page: str, name: str) -> tuple[int, int]:
    """Where the text between the marks begins and ends."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    found = re.search(f"{re.escape(begin)}(.*?){re.escape(end)}", page, re.DOTALL)
    if not found:
        raise ValueError(f"{path} needs the lines {begin} and {end} around the table")
    return found.span(1)
