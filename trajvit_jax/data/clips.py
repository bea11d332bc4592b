"""Temporal views of stored videos, and fewer of their frames: records made of records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

import numpy as np

from tokenization.sampling import sample_indices, with_annotated
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import UnusableRecord

SAME = 1e-3  # seconds: times are stored in float32


class Clips(Sequence[Record]):
    """`views` records of each one: the frames of its parts, which follow one another in time.

    A part that has more frames than are asked for gives the middle ones of equal stretches, as a
    video does when it is extracted. Trajectories are those of the stored video, cut to the frames.
    """

    def __init__(self, source: Sequence[Record], frames: int, views: int = 1) -> None:
        """Args: the stored videos, frames of a view, and views of a video."""
        self.source, self.frames, self.views = source, frames, views

    def __len__(self) -> int:
        return len(self.source) * self.views

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index.__index__()
        return view(
            self.source[position // self.views],
            position % self.views,
            frames=self.frames,
            views=self.views,
        )

    def __repr__(self) -> str:
        return f"Clips({self.source!r}, {self.frames} frames, {self.views} views)"


def annotated_frames(record: Record) -> np.ndarray:
    """The stored frames on screen when the record has boxes."""
    if record.boxes is None:
        return np.zeros(0, np.int64)
    times = record.trajectories.frame_times
    return np.searchsorted(times, np.unique(record.boxes.times) + SAME, "right") - 1


def view(record: Record, number: int, *, frames: int, views: int = 1) -> Record:
    """One of the views of a record; annotations stay as they are.

    Raises:
      UnusableRecord: the record has too few frames for all its views.
    """
    stored = len(record.frames)
    part = stored // views
    if part < frames:
        raise UnusableRecord(
            f"record {record.id!r} has {stored} frames, {views} views of {frames} need "
            f"{views * frames}; extract with more"
        )
    if stored == frames:
        return record
    shown = annotated_frames(record) - number * part
    inside = [int(one) for one in shown if 0 <= one < part]
    chosen = number * part + with_annotated(sample_indices(part, frames), inside)
    return dataclasses.replace(
        record,
        frames=record.frames[chosen],
        trajectories=record.trajectories.take_frames(chosen),
    )
