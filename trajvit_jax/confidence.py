"""How sure a number is: the one bootstrap, and the one interval of a share, of all evaluations.

The bootstrap (Efron 1979) asks what a number would be of other samples of the same size, drawn with
replacement from these; the middle 95% of the draws are its interval. What belongs together, as the
captions or the questions of one video, is drawn together: the samples are then the videos.

Where all samples are alike every draw is, too, and says nothing: there Wilson's interval (1927).
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Float64, Int64

LEVEL = 0.95
_Z = 1.959963984540054  # deviations of a normal distribution that hold LEVEL of it
_AT_ONCE = 2**22  # counts


def draws(samples: int, count: int, *, seed: int) -> Iterator[Int64[np.ndarray, " samples"]]:
    """Numbers of the samples of each draw.

    Args:
      samples: how many there are, and how many are drawn.
      count: of draws.
      seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield rng.integers(samples, size=samples)


def weighted_draws(
    values: Float64[np.ndarray, "samples k"], count: int, *, seed: int
) -> Float64[np.ndarray, "count k"]:
    """The sum over each draw of what every sample brings.

    Args:
      values: k numbers of each sample: of a mean the sum and the number of what it is over.
      count: of draws.
      seed: of the draws, which are those of `draws`.
    """
    samples = len(values)
    drawn, found = draws(samples, count, seed=seed), np.empty((count, values.shape[1]))
    # Some draws at a time: thousands of videos in all draws at once are much memory.
    step = max(1, _AT_ONCE // samples)
    for start in range(0, count, step):
        size = min(step, count - start)
        times = [np.bincount(next(drawn), minlength=samples) for _ in range(size)]
        found[start : start + size] = np.array(times, np.float64) @ values
    return found


def interval(values: Float[np.ndarray, " count"]) -> tuple[float, float]:
    """Ends of the middle 95% of the draws' values; NaN is of a draw that has none."""
    low, high = np.nanpercentile(values, (50 * (1 - LEVEL), 50 * (1 + LEVEL)))
    return float(low), float(high)


def wilson(share: float, count: int | float) -> tuple[float, float]:
    """Wilson's interval of a share, 0 to 1, that `count` independent trials gave."""
    spread = _Z**2 / count
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(share * (1 - share) * spread + spread**2 / 4) / (1 + spread)
    return max(middle - half, 0.0), min(middle + half, 1.0)
