"""How sure a difference is: errors over seeds, a bootstrap over clips and seeds of two models."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from trajvit_jax.confidence import interval, weighted_draws

_RESAMPLES = 10_000


@dataclasses.dataclass(frozen=True)
class Mean:
    """A mean and its standard error; NaN for a single value."""

    value: float
    error: float

    def __str__(self) -> str:
        return (
            f"{self.value:.1f}" if np.isnan(self.error) else f"{self.value:.1f} ± {self.error:.1f}"
        )


def over_seeds(values: list[float]) -> Mean:
    """Of one number a seed."""
    n = len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("nan")
    return Mean(float(np.mean(values)), error)


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """How one model answers the questions about the clips of one source.

    Attributes:
      hits: of each way to ask, seed and clip, how many of its queries were answered right.
      queries: of each way and clip, how many there are; a clip may have none of its own.
    """

    hits: Float64[np.ndarray, "ways seeds clips"]
    queries: Float64[np.ndarray, "ways clips"]

    def share(self) -> Float64[np.ndarray, " seeds"]:
        """Percent of right answers, mean of the ways."""
        return 100 * (self.hits.sum(-1) / self.queries.sum(-1, keepdims=True)).mean(0)


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model less another, in points, with a 95% interval.

    Attributes:
      value: of the means over seeds.
      low: end of the interval.
      high: end of the interval.
      seeds: whether the interval covers which seeds were drawn, beside which clips; it cannot
        where a model has a single seed.
    """

    value: float
    low: float
    high: float
    seeds: bool

    @property
    def certain(self) -> bool:
        """Whether zero lies outside an interval of clips and seeds."""
        return self.seeds and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        text = f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})"
        return text if self.seeds else f"{text} clips alone"


def bootstrap(
    ours: Sequence[Answers],
    others: Sequence[Answers],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The mean difference between two models over sources of clips.

    Each draw takes clips of every source with replacement, the same for both models and all ways
    to ask (paired), and seeds of each model, the same for all sources. Sources count once,
    however large they are. Of n seeds n - 1 are drawn: the mean of so many varies as the mean of
    n independent seeds does (McCarthy and Snowden 1985), that of n too little.

    Args:
      ours: of each source.
      others: of the same clips, in the same order; it may have another number of seeds.
      resamples: how many draws.
      seed: of the draws.

    Raises:
      ValueError: sources of other clips or questions.
    """
    rng = np.random.default_rng(seed)
    weights = [_draw_seeds(rng, of[0].hits.shape[1], resamples) for of in (ours, others)]
    drawn, means = np.zeros(resamples), []
    for number, pair in enumerate(zip(ours, others, strict=True), start=1):
        one, other = pair
        if not np.array_equal(one.queries, other.queries):
            raise ValueError("answers to other questions cannot be paired")
        means.append(one.share().mean() - other.share().mean())
        ways, clips = one.queries.shape
        counts = [one.queries, *(of.hits.reshape(-1, clips) for of in pair)]
        sums = weighted_draws(np.concatenate(counts).T, resamples, seed=seed + number)
        asked, hits = sums[:, :ways], np.split(sums[:, ways:], [ways * one.hits.shape[1]], axis=1)
        for sign, own, weight in zip((1, -1), hits, weights, strict=True):
            shares = own.reshape(resamples, ways, -1) / asked[:, :, None]
            drawn += sign * 100 * (shares.mean(1) * weight).sum(1)
    covered = all(of[0].hits.shape[1] > 1 for of in (ours, others))
    return Difference(float(np.mean(means)), *interval(drawn / len(means)), covered)


def _draw_seeds(
    rng: np.random.Generator, seeds: int, resamples: int
) -> Float64[np.ndarray, "resamples seeds"]:
    """What each seed counts in each draw, 1 in all."""
    if seeds == 1:
        return np.ones((resamples, 1))
    return rng.multinomial(seeds - 1, np.full(seeds, 1 / seeds), resamples) / (seeds - 1)


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's; equal values share the middle of their ranks. NaN where all are equal."""
    ranks = [_ranks(np.asarray(values, np.float64)) for values in (one, other)]
    if min(np.ptp(own) for own in ranks) == 0:
        return float("nan")
    return float(np.corrcoef(*ranks)[0, 1])


def _ranks(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    return (values[:, None] > values).sum(1) + ((values[:, None] == values).sum(1) - 1) / 2
