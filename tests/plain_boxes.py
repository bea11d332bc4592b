"""Boxes by the plain formula."""

from __future__ import annotations

import numpy as np


def iou(one: np.ndarray, other: np.ndarray) -> float:
    """Of two boxes (x0, y0, x1, y1); 0 where they do not meet."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    both = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both / (sum(areas) - both) if both else 0.0
