"""Square patches as segments: what the tracking-only ablation tracks (paper §4.5)."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, UInt8


class PatchSegmenter:
    """Every frame is the same grid.

    Args:
      size: side of a patch in pixels; the last row and column take what is left.

    Raises:
      ValueError: a side under 1.
    """

    name = "patches"

    def __init__(self, size: int = 16):
        if size < 1:
            raise ValueError(f"patches need a side of at least 1 pixel, got {size}")
        self.size = size

    def segment(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Int32[np.ndarray, "k h w"]:
        """Patches 1..m, row by row; see `Segmenter`."""
        k, h, w = frames.shape[:3]
        return np.broadcast_to(patch_numbers(h, w, self.size) + 1, (k, h, w)).copy()


def patch_numbers(h: int, w: int, size: int) -> Int32[np.ndarray, "h w"]:
    """The patch of each pixel, counted from 0 row by row."""
    rows, columns = np.arange(h) // size, np.arange(w) // size
    return (rows[:, None] * (columns[-1] + 1) + columns).astype(np.int32)
