"""How well label maps follow objects whose masks are known.

Shape letters: t frames of h x w pixels; k objects and n labels, with 0 = none of them.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer


def overlaps(
    labels: Integer[np.ndarray, "t h w"], truth: Integer[np.ndarray, "t h w"]
) -> Int64[np.ndarray, "t k n"]:
    """Pixels that each object shares with each label in each frame."""
    objects, n = int(truth.max()) + 1, int(labels.max()) + 1
    pairs = truth.astype(np.int64) * n + labels
    counts = [np.bincount(frame.reshape(-1), minlength=objects * n) for frame in pairs]
    return np.stack(counts).reshape(len(labels), objects, n)


def tube_ious(shared: Int64[np.ndarray, "t k n"]) -> Float64[np.ndarray, " k-1"]:
    """IoU of each object's space-time tube with that of its best label; 0 without labels.

    Args:
      shared: of `overlaps`.
    """
    total = shared.sum(0)
    union = total.sum(1, keepdims=True) + total.sum(0) - total
    return (total / np.maximum(union, 1))[1:, 1:].max(1, initial=0.0)


def identity_switches(shared: Int64[np.ndarray, "t k n"]) -> Int64[np.ndarray, " k-1"]:
    """How often the label that covers most of an object is another one than before.

    "Before" is the last frame in which any pixel of the object was seen. An object that no
    label covers counts as covered by label 0.

    Args:
      shared: of `overlaps`.
    """
    counts = []
    for frames in shared.transpose(1, 0, 2)[1:]:
        best = frames[frames.sum(1) > 0].argmax(1)
        counts.append(np.count_nonzero(best[1:] != best[:-1]))
    return np.array(counts, np.int64)


def coverage(labels: Integer[np.ndarray, "t h w"]) -> float:
    """Fraction of the pixels that have a label, in the frame where it is lowest."""
    return float((labels > 0).mean((1, 2)).min())


def jaccard(found: Bool[np.ndarray, "t h w"], truth: Bool[np.ndarray, "t h w"]) -> float:
    """Mean IoU over the frames after the first; a frame where both are empty counts as 1."""
    both, either = (found & truth)[1:].sum((1, 2)), (found | truth)[1:].sum((1, 2))
    return float(np.where(either > 0, both / np.maximum(either, 1), 1.0).mean())
