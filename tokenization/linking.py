"""Identities across clips, by the overlap of masks (paper §3.1, "Merging objects").

Every clip but the last is tracked through the first frame of the next one. There, the
propagated segments meet the fresh segmentation, and pairs that overlap enough are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float64, Int, Int32, Int64, Integer

Rule = Literal["one_to_one", "many_to_one"]


def overlaps(
    old: Integer[np.ndarray, "h w"], new: Integer[np.ndarray, "h w"]
) -> tuple[Int64[np.ndarray, " m"], Int64[np.ndarray, " n"], Float64[np.ndarray, "m n"]]:
    """IoU of every segment of `old` with every segment of `new`, from one joint histogram.

    Returns:
      The labels that occur in `old` and in `new`, ascending and without 0, and their IoUs.
    """
    old_ids, old_index = np.unique(old, return_inverse=True)
    new_ids, new_index = np.unique(new, return_inverse=True)
    shape = (old_ids.size, new_ids.size)
    pair = np.ravel_multi_index((old_index.reshape(-1), new_index.reshape(-1)), shape)
    joint = np.bincount(pair, minlength=shape[0] * shape[1]).reshape(shape)
    iou = joint / (joint.sum(1, keepdims=True) + joint.sum(0, keepdims=True) - joint)
    rows, columns = old_ids != 0, new_ids != 0
    return (
        old_ids[rows].astype(np.int64),
        new_ids[columns].astype(np.int64),
        iou[rows][:, columns],
    )


def match_one_to_one(iou: Float64[np.ndarray, "m n"], threshold: float) -> Int64[np.ndarray, " n"]:
    """The old segment (row) of each new one (column), -1 for none: IoU > threshold, best first.

    Equal IoUs are settled by the lower row, then the lower column.
    """
    match = np.full(iou.shape[1], -1, np.int64)
    rows, columns = np.nonzero(iou > threshold)
    taken = np.zeros(iou.shape[0], bool)
    for pair in np.argsort(-iou[rows, columns], kind="stable"):
        row, column = rows[pair], columns[pair]
        if match[column] < 0 and not taken[row]:
            match[column] = row
            taken[row] = True
    return match


def match_many_to_one(iou: Float64[np.ndarray, "m n"], threshold: float) -> Int64[np.ndarray, " n"]:
    """The old segment (row) that each new one (column) overlaps most, -1 where IoU < threshold.

    As in the released program: several new segments may claim the same old one, and an IoU
    equal to the threshold is a match.
    """
    if iou.shape[0] == 0:
        return np.full(iou.shape[1], -1, np.int64)
    return np.where(iou.max(axis=0) >= threshold, iou.argmax(axis=0), -1).astype(np.int64)


def matcher(rule: Rule) -> Callable[..., Int64[np.ndarray, " n"]]:
    """The matching function of a rule.

    Raises:
      ValueError: an unknown rule.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"unknown linking rule {rule!r}; known: {', '.join(get_args(Rule))}")
    return match_one_to_one if rule == "one_to_one" else match_many_to_one


def link_clips(
    clips: Sequence[Int[np.ndarray, "_ h w"]],
    *,
    threshold: float = 0.8,
    rule: Rule = "one_to_one",
) -> Int32[np.ndarray, "t h w"]:
    """Joins the labels of consecutive clips into labels of the whole video.

    Args:
      clips: labels of each clip (0 = none), on their own numbering. Every clip but the last
        ends with one extra frame: its segments propagated onto the next clip's first frame.
      threshold: IoU above which a propagated and a fresh segment are the same object. The
        paper links above 0.8, the released program from 0.5.
      rule: `one_to_one` (paper) or `many_to_one` (released program). In the latter, when
        several fresh segments claim one trajectory, the last of them carries it through the
        clip and the pixels of the others belong to none.

    Returns:
      Labels without the extra frames: 1.. in order of appearance, clip by clip.

    Raises:
      ValueError: no clip, a clip without frames of its own, frames of several sizes, a
        negative label, or an unknown rule.
    """
    match = matcher(rule)
    if not clips:
        raise ValueError("there is no clip to link")
    for number, clip in enumerate(clips):
        extra = number < len(clips) - 1
        if len(clip) < 1 + extra:
            need = "a frame, and the next clip's first one" if extra else "a frame"
            raise ValueError(f"clip {number} of {len(clips)} has {len(clip)} frames; needs {need}")
        if clip.shape[1:] != clips[0].shape[1:]:
            raise ValueError(
                f"clip {number} has frames of {clip.shape[1]}x{clip.shape[2]}, "
                f"clip 0 of {clips[0].shape[1]}x{clips[0].shape[2]}"
            )
        if clip.min(initial=0) < 0:
            raise ValueError(f"clip {number} has negative label {clip.min()}; 0 = no segment")

    linked = []
    trajectories = 0
    # trajectory[label] of the clip before and of this one, by the clip's own numbering.
    before = trajectory = np.zeros(1, np.int32)
    for number, clip in enumerate(clips):
        present = np.bincount(clip.reshape(-1)) > 0
        before, trajectory = trajectory, np.zeros(present.size, np.int32)
        if number:
            old_ids, new_ids, iou = overlaps(clips[number - 1][-1], clip[0])
            row = match(iou, threshold)
            trajectory[new_ids[row >= 0]] = before[old_ids[row[row >= 0]]]
        born = np.flatnonzero(present & (trajectory == 0))
        born = born[born > 0]
        trajectory[born] = trajectories + 1 + np.arange(born.size)
        trajectories += born.size
        frames = len(clip) - (number < len(clips) - 1)
        linked.append(_last_claims(trajectory)[clip[:frames]])
    return np.concatenate(linked)


def _last_claims(trajectory: Int32[np.ndarray, " n"]) -> Int32[np.ndarray, " n"]:
    """Sets all but the last occurrence of each number to 0."""
    numbers, from_end = np.unique(trajectory[::-1], return_index=True)
    kept = np.zeros_like(trajectory)
    kept[trajectory.size - 1 - from_end] = numbers
    return kept
