"""From marks to numbers: a benchmark's metrics, over all questions and in each group."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from trajvit_jax.llm.benchmarks import intervals
from trajvit_jax.llm.benchmarks.contract import Benchmark, Item, Marks, Metric
from trajvit_jax.llm.benchmarks.intervals import Mean


@dataclasses.dataclass(frozen=True)
class Scored:
    """A question, what its video is called, and what the answer is worth."""

    item: Item
    video: str
    marks: Marks


@dataclasses.dataclass(frozen=True)
class Scores:
    """The numbers of a benchmark.

    Attributes:
      metrics: by name; one that no question has a mark of is not there.
      groups: by kind of group, group and metric.
    """

    metrics: Mapping[str, Mean]
    groups: Mapping[str, Mapping[str, Mapping[str, Mean]]]


def score(benchmark: Benchmark, scored: Sequence[Scored], *, seed: int = 0) -> Scores:
    """The metrics of answers.

    Args:
      benchmark: of the questions.
      scored: those that were answered.
      seed: of the intervals' draws.
    """
    kinds = {kind: None for one in scored for kind in one.item.groups}
    return Scores(
        _metrics(benchmark.metrics, scored, seed),
        {
            kind: {
                name: _metrics(benchmark.metrics, own, seed, within=kind)
                for name, own in sorted(_split(scored, kind).items())
            }
            for kind in kinds
        },
    )


def with_failures(
    benchmark: Benchmark,
    scored: Sequence[Scored],
    failed: Sequence[tuple[Item, str]],
    names: Collection[str],
    *,
    seed: int = 0,
) -> Mapping[str, Mean]:
    """The metrics where questions without an answer, or answers without a mark, count as wrong.

    Models fail on different questions (one with more tokens a video on long ones), and judges on
    different answers: only these numbers are over the same questions for all.

    Args:
      benchmark: of the questions.
      scored: those that were answered; a mark that lacks is one that the judge failed to give.
      failed: those that were not, and what their videos are called.
      names: of the metrics that an answer has marks of.
      seed: of the intervals' draws.
    """
    worst = {one.name: one.worst for one in benchmark.metrics if one.name in names}
    marked = [dataclasses.replace(one, marks=worst | one.marks) for one in scored]
    wrong = [Scored(item, video, worst) for item, video in failed]
    return _metrics(benchmark.metrics, [*marked, *wrong], seed)


def _metrics(
    metrics: Iterable[Metric], scored: Sequence[Scored], seed: int, within: str = ""
) -> dict[str, Mean]:
    found = {}
    for metric in metrics:
        own = [one for one in scored if metric.name in one.marks]
        if own and metric.each and metric.each != within:
            groups = [_marks(group, metric) for group in _split(own, metric.each).values()]
            mean = intervals.mean_of_means(groups, seed=seed, most=metric.most)
            found[metric.name] = mean.scaled(metric.scale)
        elif own:
            mean = intervals.mean(*_marks(own, metric), seed=seed, most=metric.most)
            found[metric.name] = mean.scaled(metric.scale)
    return found


def _marks(scored: Sequence[Scored], metric: Metric) -> tuple[list[float], list[str]]:
    return [one.marks[metric.name] for one in scored], [one.video for one in scored]


def _split(scored: Sequence[Scored], kind: str) -> dict[str, list[Scored]]:
    groups: dict[str, list[Scored]] = {}
    for one in scored:
        if kind in one.item.groups:
            groups.setdefault(one.item.groups[kind], []).append(one)
    return groups
