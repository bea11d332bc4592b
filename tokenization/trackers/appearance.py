"""How likely each label is to look like a region: densities of the superpixels it was seen in.

Examples are sorted by label, so that sums over the examples of a label are one `reduceat`
whatever the number of labels.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.spatial.distance import cdist


@dataclasses.dataclass(frozen=True, eq=False)
class Examples:
    """Superpixels that labels were seen in.

    Attributes:
      features: colours, then x and y.
      owners: label of each, ascending.
    """

    features: Float32[np.ndarray, "m c"]
    owners: Int64[np.ndarray, " m"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "m c"], owners: Int64[np.ndarray, " m"]) -> Examples:
        """Sorts examples by their label."""
        order = np.argsort(owners, kind="stable")
        return cls(features[order].astype(np.float32), owners[order])

    def join(self, other: Examples) -> Examples:
        """The examples of both."""
        return Examples.of(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.owners, other.owners]),
        )

    def reduce(
        self, ufunc: np.ufunc, values: Float[np.ndarray, "s m"], labels: int, empty: float
    ) -> Float[np.ndarray, "s {labels}"]:
        """Joins each row's values label by label; `empty` for labels without examples."""
        joined = np.full((len(values), labels), empty, values.dtype)
        first = np.flatnonzero(np.diff(self.owners, prepend=-1))
        if first.size:
            joined[:, self.owners[first]] = ufunc.reduceat(values, first, axis=1)
        return joined


def colour_likelihood(
    features: Float[np.ndarray, "s c"], examples: Examples, labels: int, *, bandwidth: float
) -> Float32[np.ndarray, "s {labels}"]:
    """Gaussian kernel density of each label's colours, wherever in the frame they were.

    Args:
      features: colours (and more, not looked at) of the regions.
      examples: of the labels.
      labels: how many there are; the density of those without examples is 0.
      bandwidth: standard deviation of the kernel.
    """
    hits = _log_kernel(features[:, :-2], examples.features[:, :-2], bandwidth)
    np.exp(hits, out=hits)
    counts = np.maximum(np.bincount(examples.owners, minlength=labels), 1)
    return examples.reduce(np.add, hits, labels, 0.0) / counts.astype(np.float32)


def local_likelihood(
    features: Float[np.ndarray, "s c"],
    examples: Examples,
    labels: int,
    *,
    bandwidth: float,
    reach: float,
    prior: float,
) -> Float32[np.ndarray, "s {labels}"]:
    """The same density among the examples nearby, for a label with few of them that of all.

    Args:
      features: of the regions, with x and y where they were when the examples were seen.
      examples: of the labels.
      labels: how many there are.
      bandwidth: standard deviation of the kernel over colours.
      reach: that of the one over positions.
      prior: weight of the density of all labels together, in examples.
    """
    near = _log_kernel(features[:, -2:], examples.features[:, -2:], reach)
    hits = _log_kernel(features[:, :-2], examples.features[:, :-2], bandwidth)
    hits += near
    np.exp(near, out=near)
    np.exp(hits, out=hits)
    all_labels = hits.sum(1, keepdims=True) / np.maximum(near.sum(1, keepdims=True), 1e-6)
    near, hits = (examples.reduce(np.add, value, labels, 0.0) for value in (near, hits))
    return (hits + prior * all_labels) / (near + prior)


def closeness(
    features: Float[np.ndarray, "s c"], examples: Examples, labels: int, *, reach: float
) -> Float32[np.ndarray, "s {labels}"]:
    """1 where a label was, falling with the distance to its nearest example (Gaussian)."""
    logs = _log_kernel(features[:, -2:], examples.features[:, -2:], reach)
    return np.exp(examples.reduce(np.maximum, logs, labels, -np.inf))


def _log_kernel(
    a: Float[np.ndarray, "s c"], b: Float[np.ndarray, "m c"], unit: float
) -> Float32[np.ndarray, "s m"]:
    """-|a - b|^2 / (2 unit^2) of all pairs; no matrix product, whose threads would compete."""
    squares = cdist(a, b, "sqeuclidean")
    return np.multiply(squares, -0.5 / unit**2, dtype=np.float32, casting="same_kind")
