"""Means of marks with their 95% intervals: questions about one video are not independent."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from trajvit_jax.confidence import interval, weighted_draws, wilson

RESAMPLES = 2000


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


def _draws(marks: Sequence[float], videos: Sequence[str], seed: int) -> tuple[float, np.ndarray]:
    """The mean, and the means of all draws."""
    if not len(marks):
        raise ValueError("there are no marks")
    names, of = np.unique(np.asarray(videos), return_inverse=True)
    sums = np.bincount(of, np.asarray(marks, np.float64))
    counts = np.bincount(of).astype(np.float64)
    drawn = weighted_draws(np.stack([sums, counts], 1), RESAMPLES, seed=seed)
    return float(sums.sum() / counts.sum()), drawn[:, 0] / drawn[:, 1]


def _summary(
    value: float, draws: np.ndarray, marks: Sequence[float], videos: Sequence[str], most: float
) -> Mean:
    different = len(set(videos))
    if different < 2:
        return Mean(value, None, None, len(marks), different)
    if len(set(marks)) == 1:
        low, high = (end * most for end in wilson(value / most, different))
    else:
        low, high = interval(draws)
    return Mean(value, low, high, len(marks), different)
