"""Which frames of a video are looked at."""

from __future__ import annotations

import itertools
from collections.abc import Collection

import numpy as np
from jaxtyping import Int64


def sample_indices(length: int, frames: int) -> Int64[np.ndarray, " frames"]:
    """Middle frames of `frames` equal parts of a video, as the released TrajViT code takes them.

    A video shorter than `frames` gives all of its frames and repeats the last one.

    Args:
      length: frames in the video.
      frames: frames to sample.

    Raises:
      ValueError: a length or a number of frames under one.
    """
    if length < 1 or frames < 1:
        raise ValueError(f"cannot sample {frames} frames of {length}: both must be at least 1")
    edges = np.linspace(0, length, min(frames, length) + 1).astype(np.int64)
    middles = (edges[:-1] + edges[1:] - 1) // 2
    return np.pad(middles, (0, frames - middles.size), mode="edge")


def with_annotated(
    indices: Int64[np.ndarray, " t"], annotated: Collection[int]
) -> Int64[np.ndarray, " t"]:
    """The same number of frames, the annotated ones among them.

    Each takes the place of the sampled frame that is nearest to it, the earlier of two; one that
    is taken by another annotated frame is not given away. Where there are more annotated frames
    than sampled ones, nothing is changed.

    Args:
      indices: of sampled frames, ascending.
      annotated: frames that must be among them.
    """
    wanted = sorted(set(annotated))
    if len(wanted) > len(indices):
        return indices
    moved, free = indices.copy(), np.ones(len(indices), bool)
    free &= ~np.isin(indices, wanted) | (np.append([1], np.diff(indices)) == 0)
    for frame in (one for one in wanted if one not in indices):
        place = int(np.argmin(np.where(free, np.abs(indices - frame), np.inf)))
        moved[place], free[place] = frame, False
    return np.sort(moved)


def indices_between(indices: Int64[np.ndarray, " t"], most: int) -> list[Int64[np.ndarray, " _"]]:
    """Evenly spaced positions between each index and the next, `most` of them at most.

    Args:
      indices: of sampled frames, ascending.
      most: positions in a gap.
    """
    found = []
    for start, end in itertools.pairwise(indices.tolist()):
        steps = max(1, min(most + 1, end - start))
        found.append(start + np.arange(1, steps) * (end - start) // steps)
    return found
