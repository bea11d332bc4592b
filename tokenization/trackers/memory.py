"""What each label looked like when it was last seen: the superpixels that it owned."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float32, Int64

from tokenization.trackers.appearance import Examples, squared_distances


class Memory:
    """Examples (feature vectors) of labels 0..k-1, kept while a label is out of sight.

    Args:
      features: of the first examples.
      labels: whose they are.
      patience: frames for which an unseen label is remembered.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "s c"],
        labels: Int64[np.ndarray, " s"],
        *,
        patience: int,
    ) -> None:
        self._patience = patience
        self._times = np.zeros(labels.size, np.int64)
        self.examples = Examples.of(features, labels)

    def update(
        self, features: Float[np.ndarray, "s c"], labels: Int64[np.ndarray, " s"], time: int
    ) -> None:
        """Replaces what is known of the given labels; forgets what was not seen for long."""
        old = self.examples
        kept = ~np.isin(old.owners, labels) & (time - self._times <= self._patience)
        owners = np.concatenate([old.owners[kept], labels])
        times = np.concatenate([self._times[kept], np.full(labels.size, time)])
        # As `Examples.of` sorts them.
        self._times = times[np.argsort(owners, kind="stable")]
        self.examples = Examples.of(np.concatenate([old.features[kept], features]), owners)

    def distances(
        self, features: Float[np.ndarray, "s c"], labels: int
    ) -> Float32[np.ndarray, "s {labels}"]:
        """From each vector to the nearest example of each label; infinite without examples."""
        squares = squared_distances(features, self.examples.features)
        return np.sqrt(self.examples.nearest(squares, labels))
