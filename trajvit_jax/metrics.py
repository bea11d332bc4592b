"""Retrieval metrics that a degenerate model cannot win."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64

from trajvit_jax.confidence import wilson

# How names end of what should be small: ranks and losses, costs, and what could not be used.
_LOWER = ("median_rank", "loss", "seconds", "memory_mib", "gflop", "tokens", "bad_records")


def lower_is_better(name: str) -> bool:
    """Whether the smallest value of a result is the best one."""
    return name.removesuffix("_dual_softmax").endswith(_LOWER)


def retrieval_ranks(
    similarity: Float[np.ndarray, "q c"], positives: Bool[np.ndarray, "q c"]
) -> Float64[np.ndarray, " q"]:
    """Rank (0 = first) of each query's best-placed positive among all candidates.

    Candidates of equal similarity share the middle of their places, so that a constant
    similarity puts every query in the middle of the list, not first.

    Raises:
      ValueError: NaN similarities, or a query without a positive.
    """
    if np.isnan(similarity).any():
        rows = np.flatnonzero(np.isnan(similarity).any(1))
        raise ValueError(
            f"similarity of {rows.size} queries is NaN (first: query {rows[0]}); the model's "
            "embeddings are not finite"
        )
    if not positives.any(1).all():
        raise ValueError(f"query {np.flatnonzero(~positives.any(1))[0]} has no positive candidate")
    best = np.where(positives, similarity, -np.inf).max(1, keepdims=True)
    above = (similarity > best).sum(1)
    tied = ((similarity == best) & ~positives).sum(1)
    return above + tied / 2


def hits_at(ranks: Float64[np.ndarray, " q"], k: int) -> Bool[np.ndarray, " q"]:
    """Whether each query's positive is among the first `k`."""
    return ranks + 1 <= k


def recall_at(ranks: Float64[np.ndarray, " q"], k: int) -> float:
    """Percentage of queries whose positive is among the first `k`."""
    return float(hits_at(ranks, k).mean() * 100)


def recall_interval(ranks: Float64[np.ndarray, " q"], k: int) -> tuple[float, float]:
    """Lowest and highest recall (percent) that the measured one is compatible with: Wilson's score.

    Unlike a bootstrap's, the interval of no hit at all is more than a point. Queries count as
    independent.

    Args:
      ranks: as `retrieval_ranks` gives them, at least one.
      k: of the recall.
    """
    low, high = wilson(recall_at(ranks, k) / 100, len(ranks))
    return 100 * low, 100 * high


def chance_recall(positives: Bool[np.ndarray, "q c"], k: int) -> float:
    """Recall (percent) that a random order of the candidates has on average."""
    candidates, right = positives.shape[1], positives.sum(1)
    places = np.arange(min(k, candidates))[:, None]
    missed = np.clip((candidates - right - places) / (candidates - places), 0.0, 1.0).prod(0)
    return float((1 - missed).mean() * 100)
