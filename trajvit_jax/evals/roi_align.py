"""RoIAlign (He et al., Mask R-CNN): a feature map under a box, as a small grid.

Each cell of the grid is the mean of `samples` x `samples` points in it, at which the map is read
bilinearly. Both directions separate, so that a box costs two small matrix products.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64


def roi_align(
    features: Float[np.ndarray, "h w d"],
    box: Float[np.ndarray, " 4"],
    *,
    size: int = 7,
    samples: int = 2,
) -> Float64[np.ndarray, "size size d"]:
    """The map under a box; cells are points at their centres (`aligned=True` in torchvision).

    Args:
      features: of the frame.
      box: (x0, y0, x1, y1) / size of the frame.
      size: cells a side of the result.
      samples: points a side in each of them.
    """
    h, w, d = features.shape
    x0, y0, x1, y1 = (float(corner) for corner in box)
    across = _weights(x0 * w - 0.5, x1 * w - 0.5, w, size, samples)
    down = _weights(y0 * h - 0.5, y1 * h - 0.5, h, size, samples)
    rows = np.einsum("xw,hwd->hxd", across, features.astype(np.float64))
    return (down @ rows.reshape(h, -1)).reshape(size, size, d)


def _weights(
    start: float, end: float, length: int, size: int, samples: int
) -> Float64[np.ndarray, "size length"]:
    """How much each of the map's cells along an axis is in each of the result's."""
    step = (end - start) / size
    offset = (np.arange(samples) + 0.5) / samples
    points = start + step * (np.arange(size)[:, None] + offset)
    inside = (points >= -1) & (points <= length)  # what is further out is zero
    points = np.clip(points, 0, length - 1)
    low = np.minimum(np.floor(points).astype(int), max(length - 2, 0))
    fraction = points - low
    weights = np.zeros((size, length))
    row = np.broadcast_to(np.arange(size)[:, None], points.shape)
    np.add.at(weights, (row, low), inside * (1 - fraction) / samples)
    np.add.at(weights, (row, np.minimum(low + 1, length - 1)), inside * fraction / samples)
    return weights
