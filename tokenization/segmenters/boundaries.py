"""Segments as the interiors between boundaries (DirectSAM, Chen et al. 2024; suppl. §8)."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Integer, UInt16

_AROUND = np.ones((3, 3), np.uint8)


def interiors(
    inside: Bool[np.ndarray, "h w"], *, min_area: int, max_segments: int
) -> UInt16[np.ndarray, "h w"]:
    """Connected components (8-neighbourhood) of more than `min_area` pixels, 1 = the largest.

    Only the `max_segments` largest are kept; of two of one size, the one that starts further
    up, or further left.

    Raises:
      ValueError: more than 65,535 segments are to be kept.
    """
    if max_segments > np.iinfo(np.uint16).max:
        raise ValueError(f"max_segments = {max_segments} must be at most 65535")
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        inside.astype(np.uint8), connectivity=8
    )
    labels = np.asarray(labels, np.int32)
    areas = stats[1:, cv2.CC_STAT_AREA]
    # OpenCV promises no order of the labels: the first pixel of each, the last one written here,
    # settles ties.
    first = np.zeros(count, np.int64)
    first[labels.reshape(-1)[::-1]] = np.arange(labels.size)[::-1]
    order = np.lexsort((first[1:], -areas))
    kept = order[areas[order] > min_area][:max_segments]
    numbers = np.zeros(count, np.uint16)
    numbers[1 + kept] = np.arange(1, 1 + kept.size)
    return numbers[labels]


def grow(labels: Integer[np.ndarray, "h w"], reach: int) -> Integer[np.ndarray, "h w"]:
    """Gives each free pixel (0) to the nearest segment within `reach` pixels.

    The distance is that of squares (Chebyshev): growing by a 5x5 square twice reaches 4 pixels.
    Equally near ones are settled for the higher number, which is the smaller segment where
    they are numbered by size. Segments never grow over each other.
    """
    grown = labels.astype(np.uint16)
    for _ in range(reach):
        grown = np.where(grown > 0, grown, cv2.dilate(grown, _AROUND))
    return grown.astype(labels.dtype)
