"""Means of marks with their 95% intervals: questions about one video are not independent."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

LEVEL = 0.95
RESAMPLES = 2000
_Z = 1.959963984540054  # of a normal distribution, for LEVEL


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean over questions.

    Attributes:
      value: the mean, in the marks' unit.
      low: of the interval; None = fewer than two videos.
      high: of the interval.
      questions: it is over.
      videos: those are about.
    """

    value: float
    low: float | None
    high: float | None
    questions: int
    videos: int

    def scaled(self, by: float) -> Mean:
        """In another unit."""
        low, high = (None if end is None else end * by for end in (self.low, self.high))
        return dataclasses.replace(self, value=self.value * by, low=low, high=high)


def mean(
    marks: Sequence[float], videos: Sequence[str], *, seed: int = 0, most: float = 1.0
) -> Mean:
    """The mean of marks and its interval, by bootstrap over videos.

    Videos are drawn with all their questions, `RESAMPLES` times; the interval holds the middle
    95% of the means. Where all marks are alike every draw is, too, and the interval is Wilson's
    (1927) for as many questions as there are videos: marks of 0 or `most` spread widest.

    Args:
      marks: one a question, from 0 to `most`.
      videos: that each question is about.
      seed: of the draws.
      most: the highest mark.

    Raises:
      ValueError: no marks.
    """
    return _summary(*_draws(marks, videos, seed), marks, videos, most)


def mean_of_means(
    groups: Sequence[tuple[Sequence[float], Sequence[str]]], *, seed: int = 0, most: float = 1.0
) -> Mean:
    """The mean of several groups' means, each counting alike; draws are made in each group.

    Args:
      groups: marks and videos of each.
      seed: of the draws.
      most: the highest mark.

    Raises:
      ValueError: no groups, or one without marks.
    """
    if not groups:
        raise ValueError("no group has marks")
    parts = [_draws(marks, videos, seed + index) for index, (marks, videos) in enumerate(groups)]
    marks = [mark for own, _ in groups for mark in own]
    videos = [video for _, own in groups for video in own]
    value = float(np.mean([value for value, _ in parts]))
    return _summary(value, np.mean([draws for _, draws in parts], axis=0), marks, videos, most)


def wilson(mark: float, count: int) -> tuple[float, float]:
    """Wilson's interval of a proportion that `count` independent trials gave."""
    spread = _Z**2 / count
    middle = (mark + spread / 2) / (1 + spread)
    half = math.sqrt(mark * (1 - mark) * spread + spread**2 / 4) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def _draws(marks: Sequence[float], videos: Sequence[str], seed: int) -> tuple[float, np.ndarray]:
    """The mean, and the means of all draws."""
    if not len(marks):
        raise ValueError("there are no marks")
    names, of = np.unique(np.asarray(videos), return_inverse=True)
    sums = np.bincount(of, np.asarray(marks, np.float64))
    counts = np.bincount(of).astype(np.float64)
    generator = np.random.default_rng(seed)
    total, drawn = np.zeros(RESAMPLES), np.zeros(RESAMPLES)
    even = np.full(len(names), 1 / len(names))
    # Some draws at a time: thousands of videos in all draws at once are much memory.
    step = max(1, 2**22 // len(names))
    for start in range(0, RESAMPLES, step):
        end = min(start + step, RESAMPLES)
        weights = generator.multinomial(len(names), even, size=end - start)
        total[start:end], drawn[start:end] = weights @ sums, weights @ counts
    return float(sums.sum() / counts.sum()), total / drawn


def _summary(
    value: float, draws: np.ndarray, marks: Sequence[float], videos: Sequence[str], most: float
) -> Mean:
    different = len(set(videos))
    if different < 2:
        return Mean(value, None, None, len(marks), different)
    if len(set(marks)) == 1:
        low, high = (end * most for end in wilson(value / most, different))
    else:
        low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
    return Mean(value, low, high, len(marks), different)
