"""Retrieval metrics that a degenerate model cannot win."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Float64


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


def recall_at(ranks: Float64[np.ndarray, " q"], k: int) -> float:
    """Percentage of queries whose positive is among the first `k`."""
    return float((ranks + 1 <= k).mean() * 100)


def retrieval_metrics(
    similarity: Float[np.ndarray, "v l"], positives: Bool[np.ndarray, "v l"]
) -> dict[str, float]:
    """R@1/5/10 (percent) and median rank (1 = first) from videos to texts and back.

    With several positives a query counts by its best one, as in the released evaluation.

    Raises:
      ValueError: see `retrieval_ranks`.
    """
    values = {}
    for name, scores, matches in (
        ("vid2txt", similarity, positives),
        ("txt2vid", similarity.T, positives.T),
    ):
        ranks = retrieval_ranks(scores, matches)
        for k in (1, 5, 10):
            values[f"{name}_r{k}"] = recall_at(ranks, k)
        values[f"{name}_median_rank"] = float(np.median(ranks) + 1)
    return values
