"""From masks that overlap to segments that do not."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int32, Int64


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


def paint(masks: Bool[np.ndarray, "n h w"], max_segments: int) -> Int32[np.ndarray, "h w"]:
    """Labels of the largest masks, smaller ones over larger ones, 1.. in order of size.

    A mask of which nothing is seen has no label.
    """
    areas = masks.sum((1, 2))
    order = np.argsort(-areas, kind="stable")
    labels = np.zeros(masks.shape[1:], np.int32)
    for number, index in enumerate(order[areas[order] > 0][:max_segments], 1):
        labels[masks[index]] = number
    seen = np.unique(labels)
    return np.searchsorted(seen[seen > 0], labels).astype(np.int32) + (labels > 0)
