"""How likely each label is to look like a region: densities of the superpixels it was seen in.

Examples are sorted by label: those of each are rows in one piece.
"""

from __future__ import annotations

import dataclasses
import itertools

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array


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

    def sums(
        self, values: Float32[np.ndarray, "m s"], labels: int
    ) -> Float32[np.ndarray, "s {labels}"]:
        """Adds up what the examples of each label say; 0 for labels without examples."""
        bounds = np.searchsorted(self.owners, np.arange(labels + 1))
        ones = np.ones(self.owners.size, np.float32)
        mine = csr_array((ones, np.arange(self.owners.size), bounds), shape=(labels, len(values)))
        return np.ascontiguousarray((mine @ values).T)

    def nearest(
        self, squares: Float32[np.ndarray, "m s"], labels: int
    ) -> Float32[np.ndarray, "s {labels}"]:
        """The least squared distance to the examples of each label; infinite without any."""
        bounds = np.searchsorted(self.owners, np.arange(labels + 1)).tolist()
        least = np.full((labels, squares.shape[1]), np.inf, np.float32)
        for label, (start, end) in enumerate(itertools.pairwise(bounds)):
            if start < end:
                np.minimum.reduce(squares[start:end], axis=0, out=least[label])
        return np.ascontiguousarray(least.T)


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
    hits = _kernel(features[:, :-2] / bandwidth, examples.features[:, :-2] / bandwidth)
    counts = np.maximum(np.bincount(examples.owners, minlength=labels), 1)
    return examples.sums(hits, labels) / counts.astype(np.float32)


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
    units = np.full(features.shape[1], bandwidth)
    units[-2:] = reach
    a, b = features / units, examples.features / units
    # A product of kernels is one kernel over colours and positions together.
    near, hits = _kernel(a[:, -2:], b[:, -2:]), _kernel(a, b)
    near, hits = (examples.sums(value, labels) for value in (near, hits))
    all_labels = hits.sum(1, keepdims=True) / np.maximum(near.sum(1, keepdims=True), 1e-6)
    return (hits + prior * all_labels) / (near + prior)


def closeness(
    features: Float[np.ndarray, "s c"], examples: Examples, labels: int, *, reach: float
) -> Float32[np.ndarray, "s {labels}"]:
    """1 where a label was, falling with the distance to its nearest example (Gaussian)."""
    squares = squared_distances(features[:, -2:], examples.features[:, -2:])
    return np.exp(examples.nearest(squares, labels) * np.float32(-0.5 / reach**2))


def squared_distances(
    a: Float[np.ndarray, "s c"], b: Float[np.ndarray, "m c"]
) -> Float32[np.ndarray, "m s"]:
    """|b - a|^2 of all pairs, each to about 1e-6 of the largest."""
    found = _scaled_squares(a, b, 1.0)
    return np.maximum(found, 0, out=found)


def _kernel(a: Float[np.ndarray, "s c"], b: Float[np.ndarray, "m c"]) -> Float32[np.ndarray, "m s"]:
    """exp(-|b - a|^2 / 2) of all pairs."""
    found = _scaled_squares(a, b, -0.5)
    return np.exp(found, out=found)


def _scaled_squares(a: np.ndarray, b: np.ndarray, scale: float) -> Float32[np.ndarray, "m s"]:
    """As |b|^2 - 2 ab + |a|^2, by OpenCV's matrix product.

    The threads of BLAS would compete with those of other workers.
    """
    centre = a.mean(0)
    a, b = (a - centre).astype(np.float32), (b - centre).astype(np.float32)
    rows = np.column_stack([-2 * b, np.ones_like(b[:, 0]), np.square(b).sum(1)])
    columns = np.vstack([a.T, np.square(a).sum(1), np.ones_like(a[:, 0])])
    return cv2.gemm(rows, columns, scale, None, 0)  # type: ignore[call-overload]
