"""How well label maps follow objects whose masks are known.

Shape letters: t frames of h x w pixels; k objects and n labels, with 0 = none of them.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, Integer

UNION = 8  # trajectories that may make up one object
BOUNDARY = 0.008  # of the diagonal: how far a boundary may be off (Perazzi et al. 2016)


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


def boundary_f(found: Bool[np.ndarray, "t h w"], truth: Bool[np.ndarray, "t h w"]) -> float:
    """Mean F-measure of the masks' boundaries over the frames after the first.

    A boundary pixel counts as found if one of the other mask's is within `BOUNDARY` diagonals
    (Perazzi et al. 2016; with a disc for the bipartite matching, as their program does). A frame
    where both are empty counts as 1.
    """
    radius = int(np.ceil(BOUNDARY * np.hypot(*truth.shape[1:])))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    scores = []
    for one, other in zip(found[1:], truth[1:], strict=True):
        edges = [_boundary(mask) for mask in (one, other)]
        near = [cv2.dilate(edge, disc) for edge in edges]
        counts = [int(edge.sum()) for edge in edges]
        if not any(counts):
            scores.append(1.0)
            continue
        precision = int((edges[0] & near[1]).sum()) / max(1, counts[0])
        recall = int((edges[1] & near[0]).sum()) / max(1, counts[1])
        scores.append(2 * precision * recall / max(1e-9, precision + recall))
    return float(np.mean(scores))


@dataclasses.dataclass(frozen=True)
class Cover:
    """How well trajectories cover one object that nobody pointed at.

    Attributes:
      labels: of the union; empty if no trajectory lies in the object for the most part.
      union: mean IoU of the union, over all frames in which the object or the union is.
      single: that of the best single trajectory.
      life: median number of frames of the union's trajectories.
    """

    labels: tuple[int, ...]
    union: float
    single: float
    life: float


def best_cover(shared: Int64[np.ndarray, "t k n"], item: int) -> Cover:
    """The trajectories of which an object is made up, found greedily.

    Candidates lie in the object with more than half of their pixels, over their whole life. At
    most `UNION` of them are joined, each the one that raises the mean IoU most, while their
    median life stays at least half of the frames.

    Args:
      shared: of `overlaps`.
      item: number of the object.
    """
    inside, areas, truth = shared[:, item], shared.sum(1), shared[:, item].sum(1)
    lives = (areas > 0).sum(0)
    mostly = 2 * inside.sum(0) > areas.sum(0)
    mostly[0] = False

    def score(chosen: list[int]) -> float:
        both = inside[:, chosen].sum(1)
        either = truth + areas[:, chosen].sum(1) - both
        seen = either > 0
        return float((both[seen] / either[seen]).mean()) if seen.any() else 0.0

    singles = [score([label]) for label in range(1, len(lives))]
    chosen: list[int] = []
    best = 0.0
    while len(chosen) < UNION:
        more = [
            (score([*chosen, label]), label)
            for label in np.flatnonzero(mostly).tolist()
            if label not in chosen and 2 * np.median(lives[[*chosen, label]]) >= len(areas)
        ]
        if not more or max(more)[0] <= best:
            break
        best, label = max(more)
        chosen.append(label)
    life = float(np.median(lives[chosen])) if chosen else 0.0
    return Cover(tuple(chosen), best, max(singles, default=0.0), life)


def _boundary(mask: Bool[np.ndarray, "h w"]) -> np.ndarray:
    """Pixels of a mask that touch others, as 0 and 1."""
    inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0)
    return mask.astype(np.uint8) - inner
