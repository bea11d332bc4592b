"""The released program's formats and rules: id maps, and the graph that joins clips.

It makes the files of the released program from masks, by the same rules, so that this package's
results can be checked against it.

Source: RAIVNLab/trajvit, `traj_gen/training/pipeline.py`. There, a video is an id map per frame,
whose ids count the objects of a clip, and a graph that names the id of every trajectory
in every frame. Masks may overlap. What this file makes, `Trajectories.from_official` reads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float32, Float64, Int32, Int64, UInt8

from tokenization import linking

Overlap = Literal["sum", "first", "last"]


def masks_to_ids(
    masks: UInt8[np.ndarray, "*t n h w"], *, overlap: Overlap = "last"
) -> Int32[np.ndarray, "*t h w"]:
    """One id map from n masks of 0 and 1: object i becomes id i + 1, 0 = no object.

    Args:
      overlap: who owns a pixel of several objects: the `first` or the `last` of them, or `sum`,
        the sum of their ids, as the released program has it (1 + 2 becomes object 3).

    Raises:
      ValueError: an unknown `overlap`.
    """
    ids = np.arange(1, masks.shape[-3] + 1, dtype=np.int32)[:, None, None]
    covered = masks != 0
    match overlap:
        case "sum":
            return np.where(covered, ids, 0).sum(axis=-3, dtype=np.int32)
        case "last":
            return np.where(covered, ids, 0).max(axis=-3, initial=0)
        case "first":
            behind = ids.size + 1
            first = np.where(covered, ids, behind).min(axis=-3, initial=behind)
            return np.where(first == behind, 0, first).astype(np.int32)
    raise ValueError(f"unknown overlap {overlap!r}; known: {', '.join(get_args(Overlap))}")


def _taps(old: int, new: int) -> tuple[Int64[np.ndarray, "k n"], Float32[np.ndarray, "k n"]]:
    """Source indices and weights of antialiased linear interpolation, tap by tap."""
    scale = np.float32(old) / np.float32(new)
    support = max(scale, np.float32(1))
    center = scale * (np.arange(new, dtype=np.float32) + np.float32(0.5))
    start = np.maximum(np.trunc(center - support + np.float32(0.5)), 0).astype(np.int64)
    stop = np.minimum(np.trunc(center + support + np.float32(0.5)), old).astype(np.int64)
    index = start + np.arange(2 * int(np.ceil(support)) + 1)[:, None]
    distance = (index.astype(np.float32) - center + np.float32(0.5)) * (np.float32(1) / support)
    weight = np.where(index < stop, np.maximum(1 - np.abs(distance), 0), 0).astype(np.float32)
    return np.minimum(index, old - 1), weight / np.cumsum(weight, axis=0)[-1]


def _resample_rows(
    image: Float32[np.ndarray, "*n h w"], height: int
) -> Float32[np.ndarray, "*n height w"]:
    index, weight = _taps(image.shape[-2], height)
    total = np.zeros((*image.shape[:-2], height, image.shape[-1]), np.float32)
    # Binary masks often reach exactly one half, so the order of the sum and its rounding (one
    # a tap, as fused multiply-add does) decide on pixels; they follow PyTorch.
    for rows, share in zip(index, weight, strict=True):
        product = image[..., rows, :].astype(np.float64) * share[:, None]
        total = (total + product).astype(np.float32)
    return total


def soft_masks(
    masks: UInt8[np.ndarray, "*n h w"], height: int, width: int
) -> Float32[np.ndarray, "*n {height} {width}"]:
    """Antialiased bilinear resize (half-pixel centres), columns first.

    Raises:
      ValueError: a side under one pixel.
    """
    if height < 1 or width < 1:
        raise ValueError(f"cannot resize masks to {height}x{width}")
    columns = np.swapaxes(masks.astype(np.float32), -1, -2)
    return _resample_rows(np.swapaxes(_resample_rows(columns, width), -1, -2), height)


def downsample_masks(
    masks: UInt8[np.ndarray, "*n h w"], height: int, width: int
) -> UInt8[np.ndarray, "*n {height} {width}"]:
    """Masks of 0 and 1 at another size: 1 where at least half of a cell is covered.

    Raises:
      ValueError: a side under one pixel.
    """
    return (soft_masks(masks, height, width) >= 0.5).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Correspondence:
    """Where the n objects of a frame come from.

    Attributes:
      token: index (from 0) of the object in the frame it comes from.
      frame: that frame: the one before, or the frame itself for a new object.
    """

    token: Int64[np.ndarray, " n"]
    frame: Float32[np.ndarray, " n"]


def mask_iou(
    old: UInt8[np.ndarray, "m h w"], new: UInt8[np.ndarray, "n h w"]
) -> Float64[np.ndarray, "m n"]:
    """IoU of every old with every new mask, which may overlap among themselves; 0 if empty."""
    a = (old != 0).reshape(len(old), -1).astype(np.float64)
    b = (new != 0).reshape(len(new), -1).astype(np.float64)
    joint = a @ b.T
    return joint / np.maximum(a.sum(1)[:, None] + b.sum(1) - joint, 1)


def correspond(
    old: UInt8[np.ndarray, "m h w"],
    new: UInt8[np.ndarray, "n h w"],
    *,
    frame: int,
    threshold: float = 0.5,
    rule: linking.Rule = "many_to_one",
) -> Correspondence:
    """Matches a new segmentation with the masks that were propagated onto its frame.

    Args:
      old: masks propagated from frame `frame`.
      new: segmentation of frame `frame + 1`.
      threshold: IoU of a match, see `linking`.
      rule: see `linking`.

    Raises:
      ValueError: an unknown rule.
    """
    row = linking.matcher(rule)(mask_iou(old, new), threshold)
    return Correspondence(
        token=np.where(row >= 0, row, np.arange(len(new))),
        frame=np.where(row >= 0, frame, frame + 1).astype(np.float32),
    )


@dataclasses.dataclass(frozen=True)
class OfficialGraph:
    """A video as the released program stores it.

    Attributes:
      ids: ids of the objects of each frame; 0 = none.
      graph: id of trajectory m in frame t; 0 = absent.
      correspondences: where the objects of each frame come from.
      objects_per_frame: mean over the frames.
    """

    ids: Int32[np.ndarray, "t h w"]
    graph: Int64[np.ndarray, "m t"]
    correspondences: tuple[Correspondence, ...]
    objects_per_frame: float


def _check(clips: Sequence[UInt8[np.ndarray, "_ _ h w"]], starts: list[int]) -> None:
    if len(starts) != len(clips) + 1 or len(starts) < 2:
        raise ValueError(
            f"{len(clips)} clips need {len(clips) + 1} key frames (the last is the number of "
            f"frames), got {starts}"
        )
    if starts[0] != 0:
        raise ValueError(f"the first clip must start at frame 0, key frames are {starts}")
    for number, clip in enumerate(clips):
        own = starts[number + 1] - starts[number]
        frames = own + (number < len(clips) - 1)
        if own < 1 or len(clip) != frames:
            raise ValueError(
                f"clip {number} must have {frames} frames by the key frames {starts} (each clip "
                f"but the last has one more than its own), got {len(clip)}"
            )


def build_graph(
    clips: Sequence[UInt8[np.ndarray, "_ _ h w"]],
    key_frames: Sequence[int] | Int64[np.ndarray, " _"],
    *,
    size: tuple[int, int] | None = None,
    threshold: float = 0.5,
    rule: linking.Rule = "many_to_one",
    overlap: Overlap = "sum",
) -> OfficialGraph:
    """Joins clips of tracked masks; the defaults are the released program's.

    Masks are matched at full size, then stored at `size`. When several objects of a frame
    claim one trajectory, the last of them has it.

    Args:
      clips: masks [frames, objects, h, w] of each clip. Every clip but the last ends with one
        extra frame: its masks propagated onto the next clip's first frame.
      key_frames: the first frame of each clip, and then the number of frames.
      size: height and width of the id maps; full size by default.
      threshold: IoU of a match.
      rule: see `linking`.
      overlap: see `masks_to_ids`.

    Raises:
      ValueError: clips and key frames do not fit together, or an unknown rule or overlap.
    """
    starts = [int(start) for start in key_frames]
    _check(clips, starts)
    correspondences: list[Correspondence] = []
    for number, clip in enumerate(clips):
        start, stop = starts[number : number + 2]
        objects = clip.shape[1]
        own = np.arange(objects)
        if number == 0:
            first = Correspondence(own, np.zeros(objects, np.float32))
        else:
            first = correspond(
                clips[number - 1][-1], clip[0], frame=start - 1, threshold=threshold, rule=rule
            )
        correspondences.append(first)
        correspondences += [
            Correspondence(own, np.full(objects, frame - 1, np.float32))
            for frame in range(start + 1, stop)
        ]

    owned = [clip[: starts[k + 1] - starts[k]] for k, clip in enumerate(clips)]
    if size is not None:
        owned = [downsample_masks(clip, *size) for clip in owned]
    return OfficialGraph(
        ids=np.concatenate([masks_to_ids(clip, overlap=overlap) for clip in owned]),
        graph=_graph(correspondences),
        correspondences=tuple(correspondences),
        objects_per_frame=float(np.mean([parents.token.size for parents in correspondences])),
    )


def _graph(correspondences: Sequence[Correspondence]) -> Int64[np.ndarray, "m t"]:
    """Follows objects back to the frame where they are new."""
    trajectories = 0
    rows: list[Int64[np.ndarray, " n"]] = []
    for frame, parents in enumerate(correspondences):
        row = np.empty(parents.token.size, np.int64)
        new = parents.frame == frame
        row[new] = trajectories + np.arange(new.sum())
        if rows:
            row[~new] = rows[-1][parents.token[~new]]
        trajectories += int(new.sum())
        rows.append(row)
    graph = np.zeros((trajectories, len(rows)), np.int64)
    for frame, row in enumerate(rows):
        graph[row, frame] = np.arange(1, row.size + 1)
    return graph
