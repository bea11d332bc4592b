"""Retrieval's results with every similarity in memory: what those in blocks are compared with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from trajvit_jax.metrics import recall_at, retrieval_ranks


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
