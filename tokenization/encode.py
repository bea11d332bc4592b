"""Frames to a video file."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from tokenization.files import replacing


def write_video(
    path: Path,
    frames: UInt8[np.ndarray, "t h w 3"],
    *,
    fps: int,
    crf: int,
    preset: str = "medium",
) -> None:
    """Encodes RGB frames to H.264 in an mp4 file; the same frames give the same bytes.

    Args:
      path: of the file, which appears whole or not at all.
      frames: at least one.
      fps: frames a second.
      crf: x264's constant rate factor: 0 keeps every pixel, 18 is hard to tell from the original.
      preset: of x264: how long it searches for a smaller file.

    Raises:
      OSError: the file cannot be written.
    """
    # With its lookahead, x264 gives other bytes now and then even on one thread.
    options = {
        "crf": str(crf),
        "preset": preset,
        "threads": "1",
        "x264-params": "rc-lookahead=0:mbtree=0",
    }
    with replacing(path) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.height, stream.width = frames.shape[1:3]
        # Colours at half the resolution, as players expect, need even sides.
        odd = stream.height % 2 or stream.width % 2
        stream.pix_fmt = "yuv444p" if odd else "yuv420p"
        for rgb in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
