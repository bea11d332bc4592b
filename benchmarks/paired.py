"""How sure a difference is: errors over seeds, a bootstrap over the queries of two models."""

from __future__ import annotations

import dataclasses

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


@dataclasses.dataclass(frozen=True)
class Difference:
    """One model less another, with a 95% interval."""

    value: float
    low: float
    high: float

    @property
    def certain(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.value:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def bootstrap(
    ours: list[Float64[np.ndarray, "seeds _"]],
    others: list[Float64[np.ndarray, "seeds _"]],
    *,
    resamples: int = _RESAMPLES,
    seed: int = 0,
) -> Difference:
    """The mean difference between two models over sets of queries, in percent.

    A set's queries are drawn anew with replacement, the same for both models (paired), and all
    seeds of a model answer them: what varies is which clips were held out. The mean is that of
    the sets, each counting once, however large it is.

    Args:
      ours: of each set, 1 where a seed's model answers a query right, else 0.
      others: of the same queries, in the same order; it may have another number of seeds.
      resamples: how many draws.
      seed: of the draws.

    Raises:
      ValueError: sets of other queries.
    """
    drawn, means = np.zeros(resamples), []
    for number, (one, other) in enumerate(zip(ours, others, strict=True)):
        if one.shape[1] != other.shape[1]:
            raise ValueError(f"{one.shape[1]} and {other.shape[1]} queries cannot be paired")
        difference = 100 * (one.mean(0) - other.mean(0))
        means.append(difference.mean())
        of_set = weighted_draws(difference[:, None], resamples, seed=seed + number)
        drawn += of_set[:, 0] / len(difference)
    return Difference(float(np.mean(means)), *interval(drawn / len(ours)))
