"""Which of many masks stay."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int64


def suppress(
    boxes: Float[np.ndarray, "n 4"], quality: Float[np.ndarray, " n"], max_overlap: float
) -> Int64[np.ndarray, " m"]:
    """Which boxes (x0, y0, x1, y1) stay, best first: none overlaps a better one more than that.

    Non-maximum suppression, as torchvision's. Equal qualities are settled for the first.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left) * (bottom - top)
    order = np.argsort(-quality, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        width = np.minimum(right[best], right[order]) - np.maximum(left[best], left[order])
        height = np.minimum(bottom[best], bottom[order]) - np.maximum(top[best], top[order])
        both = np.maximum(width, 0) * np.maximum(height, 0)
        # A box without an area overlaps nothing.
        either = np.maximum(areas[best] + areas[order] - both, np.finfo(np.float64).tiny)
        order = order[both / either <= max_overlap]
    return np.array(kept, np.int64)
