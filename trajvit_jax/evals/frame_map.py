"""Frame mAP: average precision of boxes with actions, by the evaluation of AVA (Gu et al. 2018).

AVA's own program is the PASCAL part of TensorFlow's object detection code: in a frame, a detection
belongs to the true box of its class that it overlaps most; it is right if that overlap (IoU) is at
least 0.5 and no detection with a higher score was right for the same box. Average precision is the
area under precision over recall, precision made monotone from the right (PASCAL VOC since 2010),
and mAP the mean over the classes that have a true box.

Detections of equal score count as one step of the curve, so that their order, which that program
leaves to its sorting, does not matter.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """Boxes with a score for every class.

    Attributes:
      frame: number of the frame that each box is in.
      corners: (x0, y0, x1, y1), max exclusive.
      scores: NaN = no detection of that class.
    """

    frame: Int[np.ndarray, " n"]
    corners: Float[np.ndarray, "n 4"]
    scores: Float[np.ndarray, "n c"]


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """True boxes, each with any number of classes."""

    frame: Int[np.ndarray, " m"]
    corners: Float[np.ndarray, "m 4"]
    classes: Bool[np.ndarray, "m c"]


@dataclasses.dataclass(frozen=True, eq=False)
class Matched:
    """A class's detections, the highest score first.

    Attributes:
      scores: of each.
      right: whether it is.
      frame: number of its frame.
      positives: true boxes of the class in each frame.
    """

    scores: Float64[np.ndarray, " n"]
    right: Bool[np.ndarray, " n"]
    frame: Int64[np.ndarray, " n"]
    positives: Int64[np.ndarray, " frames"]

    def average_precision(self, weights: Float[np.ndarray, " frames"] | None = None) -> float:
        """Area under the curve; NaN without a true box.

        Args:
          weights: how often each frame counts; None = once.
        """
        ones = np.ones(len(self.positives)) if weights is None else weights
        total = float(self.positives @ ones)
        if total == 0:
            return float("nan")
        own = ones[self.frame]
        found, seen = np.cumsum(self.right * own), np.cumsum(own)
        # The last of equal scores stands for all of them.
        last = np.append(self.scores[1:] != self.scores[:-1], True) if len(found) else []
        found, seen = found[last], seen[last]
        found, seen = found[seen > 0], seen[seen > 0]
        if not len(found):
            return 0.0
        recall = np.concatenate([[0.0], found / total])
        precision = np.maximum.accumulate((found / seen)[::-1])[::-1]
        return float((np.diff(recall) * precision).sum())


def overlaps(
    a: Float[np.ndarray, "n 4"], b: Float[np.ndarray, "m 4"]
) -> Float64[np.ndarray, "n m"]:
    """Intersection over union of boxes (x0, y0, x1, y1)."""
    a, b = a.astype(np.float64)[:, None], b.astype(np.float64)[None]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    both = np.clip(sides, 0, None).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).prod(-1) for x in (a, b)]
    union = areas[0] + areas[1] - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def strongest(detections: Detections, most: int) -> Detections:
    """Those of the highest scores in each frame, over all classes; of equal ones the first.

    AVA's program for the ActivityNet challenge reads no more than 50 of a frame.

    Args:
      detections: of all frames.
      most: pairs of box and class of a frame; 0 = all.
    """
    if not most or not len(detections.frame):
        return detections
    scores = detections.scores.astype(np.float64)
    for own in _by_frame(detections.frame, int(detections.frame.max()) + 1):
        flat = scores[own].reshape(-1)
        flat[np.argsort(-flat, kind="stable")[most:]] = np.nan  # NaN came last
        scores[own] = flat.reshape(len(own), -1)
    return dataclasses.replace(detections, scores=scores)


def match(detections: Detections, truth: Truth, *, frames: int, iou: float = 0.5) -> list[Matched]:
    """Which detections are right, class by class.

    Args:
      detections: of all frames.
      truth: of all frames.
      frames: how many there are.
      iou: overlap that a right detection has at least.

    Raises:
      ValueError: scores or boxes that do not belong together, or scores that are infinite.
    """
    scores = detections.scores.astype(np.float64)
    if truth.classes.shape[1:] != scores.shape[1:]:
        raise ValueError(
            f"scores of {scores.shape[1]} classes, true boxes of {truth.classes.shape[1]}"
        )
    if np.isinf(scores).any():
        raise ValueError(f"score of box {np.argwhere(np.isinf(scores))[0][0]} is infinite")
    right = np.zeros(scores.shape, bool)
    found_at, true_at = (_by_frame(own, frames) for own in (detections.frame, truth.frame))
    for own, true in zip(found_at, true_at, strict=True):
        if not len(own) or not len(true):
            continue
        overlap = overlaps(detections.corners[own], truth.corners[true])
        for number in np.flatnonzero(truth.classes[true].any(0)):
            candidates = np.flatnonzero(truth.classes[true, number])
            among = overlap[:, candidates]
            best = among.argmax(1)
            enough = among[np.arange(len(own)), best] >= iou
            taken = set()
            its = scores[own, number]
            for place in np.argsort(-its, kind="stable").tolist():
                if np.isnan(its[place]):
                    break  # they come last
                if enough[place] and int(best[place]) not in taken:
                    taken.add(int(best[place]))
                    right[own[place], number] = True
    matched = []
    for number in range(scores.shape[1]):
        own = np.flatnonzero(~np.isnan(scores[:, number]))
        own = own[np.argsort(-scores[own, number], kind="stable")]
        true = truth.frame[truth.classes[:, number]]
        matched.append(
            Matched(
                scores[own, number],
                right[own, number],
                detections.frame[own].astype(np.int64),
                np.bincount(true, minlength=frames).astype(np.int64),
            )
        )
    return matched


def mean_average_precision(
    matched: list[Matched], weights: Float[np.ndarray, " frames"] | None = None
) -> float:
    """Mean over the classes that have a true box; NaN where none has."""
    each = np.array([one.average_precision(weights) for one in matched])
    return float(each[~np.isnan(each)].mean()) if (~np.isnan(each)).any() else float("nan")


def _by_frame(frame: Int[np.ndarray, " n"], frames: int) -> list[Int64[np.ndarray, " _"]]:
    """Numbers of the boxes of each frame, in order."""
    order = np.argsort(frame, kind="stable")
    return np.split(order, np.searchsorted(frame[order], np.arange(1, frames)))
