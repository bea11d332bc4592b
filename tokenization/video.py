"""Video file -> sampled RGB frames."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from tokenization.trajectories import VideoInfo


@dataclasses.dataclass(frozen=True)
class Frames:
    """Frames sampled from one video.

    Attributes:
      rgb: pixels, rotated as displayed.
      times: seconds from the start of the video (presentation times of the container).
      indices: which decoded frame of the video (or of its start..end span) each one is.
      video: the source.
      repeated: how many trailing frames repeat the last one, because the video is shorter.
    """

    rgb: UInt8[np.ndarray, "t h w 3"]
    times: Float32[np.ndarray, " t"]
    indices: Int64[np.ndarray, " t"]
    video: VideoInfo
    repeated: int = 0
