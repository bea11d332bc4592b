"""One record -> fixed-shape arrays for the model."""

from __future__ import annotations

import dataclasses
import hashlib

import cv2
import numpy as np
from jaxtyping import Int32, UInt8, UInt16, UInt32

from tokenization.trajectories import Trajectories
from trajvit_jax.data.source import Record
from trajvit_jax.models.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class VideoSample:
    """One video at the model's size; shapes as in `Batch`, without the batch axis."""

    video: UInt8[np.ndarray, "t h w 3"]
    labels: Int32[np.ndarray, "t y x"]
    dropped: int


def keep_largest(
    labels: UInt16[np.ndarray, "t y x"], most: int
) -> tuple[Int32[np.ndarray, "t y x"], int]:
    """Slots 1..most for the `most` trajectories of the largest area, and how many had none.

    Order is kept. A trajectory without a cell takes no slot.
    """
    area = np.bincount(labels.reshape(-1))
    area[0] = 0
    seen = np.flatnonzero(area)
    kept = np.sort(seen[np.argsort(-area[seen], kind="stable")[:most]])
    slots = np.zeros(area.size, np.int32)
    slots[kept] = np.arange(1, kept.size + 1)
    return slots[labels], seen.size - kept.size


def video_sample(record: Record, settings: ModelSettings) -> VideoSample:
    """Resizes a record to the model: pixels by area or bilinear, labels by nearest.

    Raises:
      ValueError: a record with fewer or more frames than the model reads.
    """
    frames, trajectories = record.frames, record.trajectories
    if len(frames) != settings.frames:
        raise ValueError(
            f"record {record.id!r} has {len(frames)} frames, the model reads {settings.frames}; "
            f"train with model.frames = {len(frames)} (configs/demo.py:frames={len(frames)}), or "
            "extract again with "
            f"--config=configs/tokenization/classical.py:frames={settings.frames} "
            "and another --output"
        )
    return VideoSample(_resize_frames(frames, settings.image_size), *_slots(trajectories, settings))


def _resize_frames(
    frames: UInt8[np.ndarray, "t h w 3"], size: int
) -> UInt8[np.ndarray, "t size size 3"]:
    if frames.shape[1:3] == (size, size):
        return frames
    shrinks = frames.shape[1] > size
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(frame, (size, size), interpolation=how) for frame in frames])


def _slots(
    trajectories: Trajectories, settings: ModelSettings
) -> tuple[Int32[np.ndarray, "t y x"], int]:
    small = trajectories.resize(settings.grid, settings.grid)
    labels, unslotted = keep_largest(small.labels, settings.trajvit.max_trajectories)
    return labels, unslotted


def same_text(caption: str) -> str:
    """The form in which two captions are compared: case and outer blanks do not count."""
    return caption.strip().lower()


def caption_hash(caption: str) -> UInt32[np.ndarray, " 2"]:
    """64 bits of the caption's SHA-256, as `same_text` sees it."""
    digest = hashlib.sha256(same_text(caption).encode()).digest()
    return np.frombuffer(digest[:8], np.uint32).copy()
