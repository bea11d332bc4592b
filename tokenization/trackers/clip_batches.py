"""Clips of many videos, put together so that a tracker sees each frame once."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8

from tokenization.protocols import Clip

_Frame = UInt8[np.ndarray, "_ _ 3"]


@dataclasses.dataclass(frozen=True)
class Group:
    """Clips of one length.

    Attributes:
      clips: their numbers in the whole.
      frames: of each clip, the numbers of its frames among those of the batch.
      members: of each object, which of these clips it is in; ascending.
      labels: of each object, its label there.
    """

    clips: tuple[int, ...]
    frames: Int64[np.ndarray, "k t"]
    members: Int64[np.ndarray, " n"]
    labels: Int32[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True)
class Batch:
    """Clips that are tracked together.

    Attributes:
      frames: those that any clip needs, each content once: a clip ends with the frame that the
        next one starts with.
      groups: the clips by length, the longest first: what they need is planned by the first.
    """

    frames: tuple[_Frame, ...]
    groups: tuple[Group, ...]


def batches(clips: Sequence[Clip], frames_held: int) -> Iterator[Batch]:
    """Cuts a sequence of clips into batches that hold so many frames, or one clip.

    Clips without anything to follow, and those of a single frame, are left out.
    """
    held: dict[bytes, int] = {}
    frames: list[_Frame] = []
    numbers: dict[int, list[int]] = {}
    for index, clip in enumerate(clips):
        if len(clip.frames) < 2 or not clip.segments[0].any():
            continue
        keys = [_content(frame) for frame in clip.frames]
        if frames and len(held.keys() | set(keys)) > frames_held:
            yield _batch(clips, frames, numbers)
            held, frames, numbers = {}, [], {}
        for key, frame in zip(keys, clip.frames, strict=True):
            if key not in held:
                held[key] = len(frames)
                frames.append(frame)
        numbers[index] = [held[key] for key in keys]
    if frames:
        yield _batch(clips, frames, numbers)


def masks_of(
    clips: Sequence[Clip], group: Group, objects: slice
) -> list[Bool[np.ndarray, "n _ _"]]:
    """Masks in the first frame of some of a group's objects, one array a clip, in its size."""
    members, labels = group.members[objects], group.labels[objects]
    return [
        clips[group.clips[member]].segments[0] == labels[members == member][:, None, None]
        for member in np.unique(members)
    ]


def _batch(clips: Sequence[Clip], frames: Sequence[_Frame], numbers: dict[int, list[int]]) -> Batch:
    by_length: dict[int, list[int]] = {}
    for index in numbers:
        by_length.setdefault(len(numbers[index]), []).append(index)
    return Batch(
        tuple(frames),
        tuple(
            _group(clips, chosen, numbers) for _, chosen in sorted(by_length.items(), reverse=True)
        ),
    )


def _group(clips: Sequence[Clip], chosen: Sequence[int], numbers: dict[int, list[int]]) -> Group:
    labels = [np.setdiff1d(clips[index].segments[0], [0]) for index in chosen]
    return Group(
        tuple(chosen),
        np.array([numbers[index] for index in chosen], np.int64),
        np.repeat(np.arange(len(chosen)), [len(given) for given in labels]),
        np.concatenate(labels).astype(np.int32),
    )


def _content(frame: _Frame) -> bytes:
    shape = np.array(frame.shape, np.int32).tobytes()
    return hashlib.blake2b(shape + frame.tobytes(), digest_size=16).digest()
