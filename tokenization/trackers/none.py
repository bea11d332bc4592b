"""No tracking: every frame's segments are trajectories of one frame (segmentation-only, §4.5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from tokenization.protocols import Clip


class NoTracker:
    """Takes the segmentation of every frame as it is, under numbers of its own."""

    name = "none"
    gives_birth = True  # each frame's segments are new

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "t h w"]]:
        """See `Tracker`.

        Raises:
          ValueError: frames without a segmentation.
        """
        return [_apart(clip) for clip in clips]


def _apart(clip: Clip) -> Int32[np.ndarray, "t h w"]:
    missing = sorted(set(range(len(clip.frames))) - set(clip.segments))
    if missing:
        raise ValueError(
            f"tracker 'none' needs a segmentation of every frame, and there is none of frame "
            f"{missing[0]}; set split='stride' and clip_limit=1"
        )
    labels = np.stack([clip.segments[offset] for offset in range(len(clip.frames))])
    before = np.concatenate([[0], np.cumsum(labels.max((1, 2)))[:-1]]).astype(np.int32)
    return np.where(labels > 0, labels + before[:, None, None], 0)
