"""An H.264 movie: the video on the left, its trajectories on the right."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from tokenization.explore import view
from tokenization.explore.colours import palette
from tokenization.explore.items import Item
from tokenization.files import replacing
from tokenization.resizing import resize_labels

_GAP = 8
_BAR = 4
_PAPER = (16, 18, 22)
_TRACK = (44, 48, 56)
_ACCENT = (240, 190, 70)
_PLAYED = (200, 204, 212)


def compose(item: Item, *, height: int = 360) -> UInt8[np.ndarray, "t rows columns 3"]:
    """The movie's pictures; both sides are even, as 4:2:0 video asks.

    A line along the bottom shows the time; key frames are marked on it.

    Args:
      item: the video.
      height: of each pane, in pixels.
    """
    shown_width, shown_height = view.displayed_size(item)
    width = max(2, round(height * shown_width / shown_height / 2) * 2)
    height = max(2, height // 2 * 2)
    trajectories = item.trajectories
    colours = palette(len(trajectories))
    frames = view.resize_frames(item.frames, width, height)
    labels = resize_labels(trajectories.labels, height, width)
    total = 2 * width + _GAP
    pictures = np.full((len(frames), height + _GAP + _BAR, total, 3), _PAPER, np.uint8)
    pictures[:, :height, :width] = frames
    pictures[:, -_BAR:] = _TRACK
    edges = np.rint(np.linspace(0, total, len(frames) + 1)).astype(int)
    for index, picture in enumerate(pictures):
        picture[:height, width + _GAP :] = view.paint(frames[index], labels[index], colours)
        picture[-_BAR:, : edges[index + 1]] = _PLAYED
        for key in np.flatnonzero(trajectories.key_frames):
            picture[-_BAR:, edges[key] : edges[key] + 3] = _ACCENT
    return pictures


def frame_rate(item: Item) -> Fraction:
    """Frames a second at the video's own speed, kept between 2 and 30; 1 for an image."""
    times = item.trajectories.frame_times
    span = float(times[-1] - times[0])
    if len(times) < 2 or span <= 0:
        return Fraction(1)
    return Fraction(min(max((len(times) - 1) / span, 2.0), 30.0)).limit_denominator(1000)


def write_movie(path: str | os.PathLike[str], item: Item, *, height: int = 360) -> None:
    """Writes an .mp4 (H.264, yuv420p) that appears whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    pictures = compose(item, height=height)
    options = {"movflags": "faststart"}
    with (
        replacing(Path(path)) as partial,
        av.open(str(partial), "w", format="mp4", options=options) as file,
    ):
        stream = file.add_stream("libx264", rate=frame_rate(item))
        stream.height, stream.width = pictures.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "18", "preset": "veryfast"}
        for picture in pictures:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        file.mux(stream.encode())
