"""What a tracker has to be better than: a mask left where it was, and optical flow alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from tokenization.protocols import Clip
from tokenization.resizing import fit, resize_labels
from tokenization.superpixels import shrink, smooth_lab
from tokenization.trackers.optical_flow import origins


class Copied:
    """Leaves every segment where it is in the first frame."""

    name = "mask copied"
    gives_birth = False

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """See `protocols.Tracker`."""
        return [np.repeat(clip.segments[0][None], len(clip.frames), 0) for clip in clips]


class FlowOnly:
    """Gives every pixel the label of the pixel where flow says that it was, sure or not.

    Args:
      side: longer side of the working resolution, in pixels.
    """

    name = "flow only"
    gives_birth = False

    def __init__(self, side: int = 256) -> None:
        self._side = side

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """See `protocols.Tracker`."""
        return [self._track(clip) for clip in clips]

    def _track(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        height, width = clip.frames.shape[1:3]
        small = fit(width, height, self._side)
        labels = [resize_labels(clip.segments[0], small[1], small[0])]
        before = smooth_lab(shrink(clip.frames[0], self._side))
        for t, rgb in enumerate(clip.frames[1:]):
            way = [*clip.between[t], rgb] if clip.between else [rgb]
            *between, after = [smooth_lab(shrink(frame, self._side)) for frame in way]
            came = origins(before, after, between=between, colour_tolerance=np.inf)
            labels.append(labels[-1][came.rows, came.columns])
            before = after
        return resize_labels(np.stack(labels), height, width)
