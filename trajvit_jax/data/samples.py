"""One record -> fixed-shape arrays for the model."""

from __future__ import annotations

import dataclasses
import hashlib

import cv2
import numpy as np
import numpy.typing as npt
from jaxtyping import Int32, Integer, UInt8, UInt32

from tokenization.trajectories import Trajectories
from trajvit_jax.data.index import frames_misfit
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import UnusableRecord
from trajvit_jax.models.settings import ModelSettings

Sized = tuple[UInt8[np.ndarray, "t h w 3"], Trajectories]
"""Frames and trajectories at the model's size."""


@dataclasses.dataclass(frozen=True)
class VideoSample:
    """One video at the model's size; shapes as in `Batch`, without the batch axis."""

    video: UInt8[np.ndarray, "t h w 3"]
    labels: Int32[np.ndarray, "t y x"]
    dropped: int


def in_slots(
    trajectories: Trajectories,
    most: int,
    *,
    start: int = 0,
    each: int = 1,
    dtype: npt.DTypeLike = np.int32,
) -> tuple[Integer[np.ndarray, "t y x"], int]:
    """Label maps that name slots, and how many trajectories have none.

    The `most` trajectories of the largest area have slots, in their own order.

    Args:
      trajectories: of the video, at the size at which areas count.
      most: slots there are for them.
      start: slot of the video's CLS; the first trajectory's is the next.
      each: slots that a trajectory takes; labels name the first of them.
      dtype: of the label maps.
    """
    labels, n = trajectories.labels, len(trajectories)
    if n <= most:
        # The plain formula is several times faster than a table; it wraps at 0, masked after.
        slots = (labels.astype(dtype) - 1) * each + (start + 1)
        slots *= labels > 0
        return slots, 0
    area = np.bincount(labels.reshape(-1), minlength=n + 1)[1:]
    kept = np.sort(np.argsort(-area, kind="stable")[:most]) + 1
    table = np.zeros(n + 1, dtype)
    table[kept] = start + 1 + each * np.arange(most)
    return table[labels], n - most


def check_frames(record: Record, settings: ModelSettings) -> None:
    """Raises UnusableRecord for a record with fewer or more frames than the model reads."""
    frames = len(record.frames)
    if frames != settings.frames:
        raise UnusableRecord(frames_misfit(record.id, frames, settings.frames))


def resized(record: Record, settings: ModelSettings) -> Sized:
    """Frames and trajectories at the model's size: by area or bilinear, labels by nearest.

    Raises:
      UnusableRecord: fewer or more frames than the model reads.
    """
    check_frames(record, settings)
    frames = _resize_frames(record.frames, settings.image_size)
    return frames, record.trajectories.resize(settings.grid, settings.grid)


def video_sample(record: Record, settings: ModelSettings) -> VideoSample:
    """A record in a row of its own.

    Raises:
      UnusableRecord: fewer or more frames than the model reads.
    """
    frames, trajectories = resized(record, settings)
    return VideoSample(frames, *in_slots(trajectories, settings.trajvit.max_trajectories))


def _resize_frames(
    frames: UInt8[np.ndarray, "t h w 3"], size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    if frames.shape[1:3] == (size, size):
        return frames
    shrinks = frames.shape[1] > size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def usable_captions(record: Record) -> tuple[str, ...]:
    """The captions that say something.

    Raises:
      UnusableRecord: there is none.
    """
    captions = tuple(caption for caption in record.captions if caption.strip())
    if not captions:
        raise UnusableRecord(
            f"record {record.id!r} has no caption; add 'captions' to its manifest line and "
            "extract again"
        )
    return captions


def same_text(caption: str) -> str:
    """The form in which two captions are compared: case and outer blanks do not count."""
    return caption.strip().lower()


def caption_hash(caption: str) -> UInt32[np.ndarray, " 2"]:
    """64 bits of the caption's SHA-256, as `same_text` sees it."""
    return hash_words(same_text(caption))


def hash_words(text: str) -> UInt32[np.ndarray, " 2"]:
    """64 bits of a text's SHA-256 as two words."""
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:8], "<u4").astype(np.uint32)
