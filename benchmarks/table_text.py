"""Finished rows as a table: recalls with errors, differences, tokens and costs."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from benchmarks.paired import Difference, Mean, bootstrap, over_seeds
from benchmarks.table_costs import StepCost
from benchmarks.table_rows import WAYS, Finished, Ledger, Row
from tokenization.files import write_text
from trajvit_jax.models.costs import cost_of
from trajvit_jax.models.flops import count_forward
from trajvit_jax.models.settings import ModelSettings

SOURCES = ("exercises", "panda", "world")
AVERAGED = ("exercises", "world")
"""Sources with enough held-out clips to tell anything; Panda's 26 do not."""
K = 5


@dataclasses.dataclass(frozen=True)
class Line:
    """A row of a table over its finished seeds.

    Attributes:
      title: of the row.
      seeds: how many.
      tokens: mean of the held-out clips, before the first layer and after the last.
      gflops: of one clip with so many tokens, forward.
      step: what a training step costs; None = not measured.
      recalls: 'source way' -> R@5 in percent.
      average: of `AVERAGED`, both ways.
      difference: of this average from the first row's; None for the first itself.
    """

    title: str
    seeds: int
    tokens: tuple[float, float]
    gflops: float
    step: StepCost | None
    recalls: Mapping[str, Mean]
    average: Mean
    difference: Difference | None


def lines_of(
    rows: Sequence[Row],
    titles: Mapping[str, str],
    seeds: Sequence[int],
    ledger: Ledger,
    costs: Mapping[str, StepCost],
    *,
    reference: str,
) -> list[Line]:
    """A line of each row that has a finished seed.

    Args:
      rows: of the table, finished or not.
      titles: of the rows.
      seeds: that count.
      ledger: with what is finished.
      costs: of steps, by name of the row.
      reference: name of the row that differences are from; there are none until it is finished.

    Raises:
      ValueError: rows that were asked other questions, or seeds of a row of other records.
    """
    by_row = {row.name: ledger.of(row, seeds) for row in rows}
    check_comparable([one for finished in by_row.values() for one in finished])
    found, first = [], by_row.get(reference, [])
    for row in rows:
        finished = by_row[row.name]
        if not finished:
            continue
        compared = first and finished is not first
        cost = costs.get(row.name)
        found.append(
            Line(
                title=titles[row.name],
                seeds=len(finished),
                tokens=finished[0].tokens,
                gflops=flops(row.settings(0).model, finished[0].tokens[0]) / 1e9,
                step=cost if cost and cost.made_of == row.made_of() else None,
                recalls=_recalls(finished),
                average=over_seeds([_average(one) for one in finished]),
                difference=_difference(finished, first) if compared else None,
            )
        )
    return found


def check_comparable(rows: Sequence[Finished]) -> None:
    """Refuses rows of other held-out clips, and seeds of a row of other records.

    Variants of the records hold the same clips, cut in other ways.

    Raises:
      ValueError: the message names two such rows.
    """
    for one in rows:
        for other in rows:
            shared = one.clips.keys() & other.clips.keys()
            clips = [name for name in shared if one.clips[name] != other.clips[name]]
            seeds = one.name == other.name and one.records != other.records
            if clips or seeds:
                raise ValueError(
                    f"{one.name}, seed {one.seed}, and {other.name}, seed {other.seed}, are of "
                    f"other {'clips' if clips else 'records'}: they cannot stand in one table"
                )


def commits(rows: Sequence[Finished]) -> str:
    """A line that names the code that rows were trained with."""
    return f"Trained at {', '.join(sorted({row.commit for row in rows}))}." if rows else ""


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
    pairs = [(source, way) for source in AVERAGED if source in row.ranks for way in WAYS]
    return float(np.mean([row.recall(source, way, K) for source, way in pairs]))


def _recalls(rows: Sequence[Finished]) -> dict[str, Mean]:
    return {
        f"{source} {way}": over_seeds([row.recall(source, way, K) for row in rows])
        for source in rows[0].ranks
        for way in WAYS
    }


def _difference(rows: Sequence[Finished], first: Sequence[Finished]) -> Difference:
    sets = [(source, way) for source in AVERAGED if source in rows[0].ranks for way in WAYS]
    return bootstrap(
        [_hits(rows, source, way) for source, way in sets],
        [_hits(first, source, way) for source, way in sets],
    )


def _hits(rows: Sequence[Finished], source: str, way: str) -> Float64[np.ndarray, "seeds _"]:
    return np.stack([row.hits(source, way, K) for row in rows])


def table(lines: Sequence[Line], what: str = "model") -> str:
    """The lines as a table in Markdown, columns aligned for those who read it as text.

    Args:
      lines: at least one.
      what: the first column holds.
    """
    if not lines:
        return "(no row is finished)"
    rows = [_cells(line, what) for line in lines]
    widths = {key: max(len(key), *(len(row[key]) for row in rows)) for key in rows[0]}
    rule = {key: "-" * (width - 1) + ":" for key, width in widths.items()} | {
        what: "-" * widths[what]
    }
    text = [{key: key for key in widths}, rule, *rows]
    return "\n".join(
        "| "
        + " | ".join(_pad(row[key], width, key == what) for key, width in widths.items())
        + " |"
        for row in text
    )


def _pad(text: str, width: int, left: bool) -> str:
    return text.ljust(width) if left else text.rjust(width)


def _cells(line: Line, what: str) -> dict[str, str]:
    first, last = line.tokens
    tokens = f"{first:.0f}" if first == last else f"{first:.0f} to {last:.0f}"
    cells = {
        what: line.title,
        "tokens": tokens,
        "GFLOP": f"{line.gflops:.2f}",
        "s a step": f"{line.step.seconds:.2f}" if line.step else "-",
        "MB a step": f"{line.step.megabytes:.0f}" if line.step else "-",
    }
    cells |= {name: str(recall) for name, recall in line.recalls.items()}
    return cells | {
        "mean": str(line.average),
        "difference (95%)": str(line.difference) if line.difference else "",
        "seeds": str(line.seeds),
    }


def replace_block(path: Path, name: str, text: str) -> None:
    """Puts a text between the marks of this name in a page; a reader never sees half of it.

    Raises:
      ValueError: a page without the two marks.
    """
    page, begin, end = path.read_text("utf-8"), f"<!-- {name} -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not pattern.search(page):
        raise ValueError(f"{path} needs the lines {begin} and {end} around the table")
    whole = f"{begin}\n\n{text}\n\n{end}"
    write_text(path, pattern.sub(lambda _: whole, page, count=1))
