"""Pictures of labels for people: sizes, tint and boundaries."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Bool, Integer, UInt8, UInt16

from tokenization.explore.items import Item


def displayed_size(item: Item) -> tuple[int, int]:
    """(width, height) as the video is shown: stored frames may be squashed to a square."""
    video = item.trajectories.video
    height, width = item.frames.shape[1:3]
    if video.width < 1 or video.height < 1:
        return width, height
    scale = max(width / video.width, height / video.height)
    return max(1, round(video.width * scale)), max(1, round(video.height * scale))


def resize_frames(
    frames: UInt8[np.ndarray, "t h w 3"], width: int, height: int
) -> UInt8[np.ndarray, "t {height} {width} 3"]:
    """Area interpolation when shrinking, cubic when enlarging."""
    if frames.shape[1:3] == (height, width):
        return frames
    shrinks = height * width < frames.shape[1] * frames.shape[2]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.stack([cv2.resize(frame, (width, height), interpolation=method) for frame in frames])


def boundaries(labels: Integer[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour has another label: lines one pixel wide."""
    edges = np.zeros(labels.shape, bool)
    edges[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    edges[:-1] |= labels[:-1] != labels[1:]
    return edges


def paint(
    frame: UInt8[np.ndarray, "h w 3"],
    labels: UInt16[np.ndarray, "h w"],
    colours: UInt8[np.ndarray, "n 3"],
    *,
    opacity: float = 0.7,
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame in grey, tinted by label (0 stays untinted), boundaries darkened."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)[..., None].astype(np.float32)
    tinted = (1 - opacity) * grey + opacity * colours[labels]
    picture = np.where((labels > 0)[..., None], tinted, 0.6 * grey)
    picture[boundaries(labels)] *= 0.45
    return np.rint(picture).astype(np.uint8)
