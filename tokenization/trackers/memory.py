"""What each label looked like when it was last seen: the superpixels that it owned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.spatial.distance import cdist


class Memory:
    """Examples (feature vectors) of labels 0..k-1, kept while a label is out of sight.

    Args:
      patience: frames for which an unseen label is remembered.
    """

    def __init__(self, patience: int) -> None:
        self._patience = patience
        self._examples: Float64[np.ndarray, "m c"] | None = None
        self._labels = np.zeros(0, np.int64)
        self._times = np.zeros(0, np.int64)

    def update(
        self, features: Float[np.ndarray, "s c"], labels: Int64[np.ndarray, " s"], time: int
    ) -> None:
        """Replaces what is known of the given labels; forgets what was not seen for long."""
        if self._examples is None:
            self._examples = np.zeros((0, features.shape[1]))
        kept = ~np.isin(self._labels, labels) & (time - self._times <= self._patience)
        examples = np.concatenate([self._examples[kept], features])
        owners = np.concatenate([self._labels[kept], labels])
        times = np.concatenate([self._times[kept], np.full(labels.size, time)])
        order = np.argsort(owners, kind="stable")
        self._examples, self._labels, self._times = examples[order], owners[order], times[order]

    def distances(
        self, features: Float[np.ndarray, "s c"], labels: int
    ) -> Float64[np.ndarray, "s {labels}"]:
        """From each vector to the nearest example of each label; infinite without examples."""
        nearest = np.full((len(features), labels), np.inf)
        if self._examples is None or not self._labels.size or not len(features):
            return nearest
        squares = cdist(features, self._examples, "sqeuclidean")
        first = np.flatnonzero(np.diff(self._labels, prepend=-1))
        best = np.minimum.reduceat(squares, first, axis=1)
        nearest[:, self._labels[first]] = np.sqrt(best)
        return nearest
