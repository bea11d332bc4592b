"""Which frames of a video are looked at."""

from __future__ import annotations

import itertools

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
