"""What an evaluation found, with everything that is needed to find it again."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenization.files import write_text
from trajvit_jax.llm.benchmarks.contract import Benchmark
from trajvit_jax.llm.benchmarks.intervals import Mean

FORMAT = 1  # of the JSON files


@dataclasses.dataclass(frozen=True, kw_only=True)
class QuestionsResult:
    """One benchmark, evaluated.

    Attributes:
      protocol: always "videoqa".
      dataset: name of the benchmark.
      split: that the benchmark usually reports.
      metrics: by name: value, low and high of the interval, questions and videos.
      groups: the same by kind of group, group and metric.
      with_failures: the metrics with questions that the model failed to answer, and answers that
        the judge failed to mark, counted as wrong, which is what numbers of two models are compared
        by; the same as `metrics` without any.
      count: questions that `metrics` are of.
      of: how many there were to be.
      missing: those that are not among the `count`: id, file, kind and reason. Kinds: "missing",
        the video is not there; "failed", the model could not answer; "unusable", the annotation
        is wrong. Questions beyond a --limit are not listed; `notes` tells of the limit.
      frames: that the model read of a video; 0 = as many as it was trained with.
      model: that answered, as the command names it.
      checkpoint: fingerprint of its files; "" = it is made by a function.
      judge: the command that judged, or "".
      settings: of the answers.
      notes: what else must be said.
      interval: how intervals were made.
      command: that made this.
      commit: of the code, '+' if it was changed; '' where it is not known.
      versions: of Python and NumPy.
      seconds: it took, without earlier runs whose answers were kept.
      format: of this file.
    """

    protocol: str = "videoqa"
    dataset: str
    split: str
    metrics: Mapping[str, Mean]
    groups: Mapping[str, Mapping[str, Mapping[str, Mean]]]
    with_failures: Mapping[str, Mean]
    count: int
    of: int
    missing: Sequence[Mapping[str, str]]
    frames: int
    model: str
    checkpoint: str
    judge: str
    settings: Mapping[str, Any]
    notes: Mapping[str, Any]
    interval: str
    command: str
    commit: str
    versions: Mapping[str, str]
    seconds: float
    format: int = FORMAT

    @property
    def failed(self) -> list[Mapping[str, str]]:
        """Those of `missing` that the model could not answer."""
        return [one for one in self.missing if one["kind"] == "failed"]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes it as JSON, whole or not at all."""
        write_text(path, json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def table(result: QuestionsResult, benchmark: Benchmark) -> str:
    """The numbers as text, beside those of the paper."""
    rows = [("", "", "95% interval", "questions", "videos", "paper: TrajViT, ViT3D")]
    for metric in benchmark.metrics:
        if metric.name not in result.with_failures:
            continue
        own, all_of_them = result.metrics.get(metric.name), result.with_failures[metric.name]
        paper = benchmark.paper.get(metric.name)
        said = "" if paper is None else f"{paper[0]:.1f}, {paper[1]:.1f}"
        rows.append((metric.name, *(_cells(own) if own else ("-", "-", "0", "0")), said))
        if own != all_of_them:
            rows.append(("  with failures", *_cells(all_of_them), ""))
    first = next((one.name for one in benchmark.metrics if one.name in result.metrics), "")
    for kind, groups in result.groups.items():
        rows.append((f"{first} by {kind}", "", "", "", "", ""))
        for name, metrics in groups.items():
            if first in metrics:
                rows.append((f"  {name}", *_cells(metrics[first]), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([*lines, *_remarks(result, benchmark)])


def _cells(mean: Mean) -> tuple[str, str, str, str]:
    low, high = mean.low, mean.high
    interval = "-" if low is None or high is None else f"{low:.1f} to {high:.1f}"
    return f"{mean.value:.2f}", interval, f"{mean.questions:,}", f"{mean.videos:,}"


def _remarks(result: QuestionsResult, benchmark: Benchmark) -> Iterator[str]:
    yield (
        f"{benchmark.title}, {result.split}: {result.count:,} of {result.of:,} questions; "
        f"{result.frames or 'as many as trained'} frames; {result.model}"
    )
    for name, note in result.notes.items():
        yield f"{name}: {note}"
    for one in result.missing[:3]:
        yield f"left out: {one['id']}: {one['reason']}"
    if len(result.missing) > 3:
        yield f"left out: {len(result.missing) - 3:,} more, see `missing` in the JSON file"
