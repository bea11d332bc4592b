"""Temporal views of stored videos, and fewer of their frames: records made of records."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, SupportsIndex, overload

from tokenization.sampling import sample_indices
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import UnusableRecord


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
    chosen = number * part + sample_indices(part, frames)
    return dataclasses.replace(
        record,
        frames=record.frames[chosen],
        trajectories=record.trajectories.take_frames(chosen),
    )
