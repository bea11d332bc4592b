"""What is known of a source's records before one is opened: from the notes beside its shards."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int64

from tokenization.records import ShardInfo, split_shards
from tokenization.shards import shard_info_path, shard_path
from trajvit_jax.data.clips import Clips
from trajvit_jax.data.source import Record, RecordSource


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a record is: its id, and the file that holds it."""

    id: str
    file: str


@dataclasses.dataclass(frozen=True, eq=False)
class RecordIndex:
    """Of a source. Small, however many records there are.

    Attributes:
      size: height and width of all its records.
      frames: every number of frames that occurs, with the number of the first such record.
      first: number of the first record of each shard.
    """

    size: tuple[int, int]
    frames: Mapping[int, int]
    first: Int64[np.ndarray, " shards"]


def read_index(source: Sequence[Record]) -> RecordIndex:
    """The index of a source; only what is no dataset of records is opened for it.

    Raises:
      RecordsError: notes that describe other records than there are.
    """
    if isinstance(source, Clips):
        return dataclasses.replace(read_index(source.source), frames={source.frames: 0})
    if not isinstance(source, RecordSource):
        frames = np.array([len(record.frames) for record in source])
        height, width = source[0].frames.shape[1:3]
        return RecordIndex((height, width), _first_of_each(frames), np.zeros(1, np.int64))
    notes = source.notes
    first = np.cumsum(notes.lengths) - notes.lengths
    return RecordIndex((notes.size, notes.size), notes.first_with, first)


def record_ids(source: Sequence[Record]) -> tuple[str, ...]:
    """The ids of a source's records, in their order; one of a dataset is not opened for it."""
    if not isinstance(source, RecordSource):
        return tuple(record.id for record in source)
    shards = split_shards(source.directory, source.split)
    return tuple(name for info in shards for name in info.ids)


def _first_of_each(values: np.ndarray) -> dict[int, int]:
    found, first = np.unique(values, return_index=True)
    return dict(zip(found.tolist(), first.tolist(), strict=True))


def find_place(source: Sequence[Record], index: RecordIndex, number: int) -> Place:
    """Where a record is; one of a dataset is not opened for it."""
    if isinstance(source, Clips):
        return find_place(source.source, index, number // source.views)
    if not isinstance(source, RecordSource):
        return Place(source[number].id, type(source).__name__)
    shard = int(np.searchsorted(index.first, number, side="right")) - 1
    path = shard_info_path(source.directory, source.split, shard)
    info = ShardInfo.from_json(path.read_text("utf-8"))
    file = shard_path(source.directory, source.split, shard)
    return Place(info.ids[number - int(index.first[shard])], str(file))


def check_index(source: Sequence[Record], index: RecordIndex, frames: int) -> None:
    """Checks that all records have as many frames as the model reads.

    Raises:
      ValueError: one has not; the message names it and its file.
    """
    for found, number in index.frames.items():
        if found != frames:
            place = find_place(source, index, number)
            raise ValueError(f"{place.file}: {frames_misfit(place.id, found, frames)}")


def frames_misfit(name: str, frames: int, wanted: int) -> str:
    """What to tell of a record with fewer or more frames than the model reads."""
    if frames == 1:  # extracted again, an image has one frame again
        return (
            f"record {name!r} has 1 frame, the model reads {wanted}; if it is an image among "
            "videos, extract again with --overwrite from an --input without it (a folder leaves "
            "out images beside videos), else with --config=configs/tokenization/classical.py:"
            f"frames={wanted} and another --output"
        )
    return (
        f"record {name!r} has {frames} frames, the model reads {wanted}; "
        f"train with model.frames = {frames} (frames={frames} behind the config's name), or "
        f"extract again with --config=configs/tokenization/classical.py:frames={wanted} "
        "and another --output"
    )
