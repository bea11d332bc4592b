"""What is kept beside every finished shard of records, so that nothing has to be read again."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt16

from tokenization.record import to_json
from tokenization.shard_files import SHARD_INFO, shard_info_path


@dataclasses.dataclass(frozen=True)
class Quarantined:
    """A video that could not become a record, and why."""

    id: str
    path: str
    reason: str
    remedy: str


@dataclasses.dataclass(frozen=True)
class ShardInfo:
    """What is kept of a finished shard beside it, so that nothing has to be read again.

    Attributes:
      split: name of its split.
      index: its number within the split.
      size: side of the frames, in pixels.
      settings: hash of the settings that made it.
      inputs: hash of the manifest's entries that went in.
      bytes: of all records.
      ids: of the records, in order, as are the next three.
      trajectories: how many each record has.
      frames: how many each record has.
      damaged: how many damaged frames the video of each has, see `video.Frames`; empty in notes
        of before they were counted.
      repeated: videos that were too short and repeat their last frame.
      short: their ids; empty in notes of before they were kept.
      seconds: processing time, summed over processes.
      quarantine: entries that gave no record.
    """

    split: str
    index: int
    size: int
    settings: str = ""
    inputs: str = ""
    bytes: int = 0
    ids: tuple[str, ...] = ()
    trajectories: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    repeated: int = 0
    short: tuple[str, ...] = ()
    seconds: float = 0.0
    quarantine: tuple[Quarantined, ...] = ()

    def to_json(self) -> str:
        """One JSON object."""
        return to_json(dataclasses.asdict(self))

    @property
    def empty(self) -> tuple[str, ...]:
        """Ids of records without any trajectory."""
        pairs = zip(self.ids, self.trajectories, strict=True)
        return tuple(name for name, found in pairs if not found)

    @property
    def with_damage(self) -> tuple[tuple[str, int], ...]:
        """Ids of records whose videos have damaged frames, and how many; none where not counted."""
        pairs = zip(self.ids, self.damaged, strict=False)
        return tuple((name, frames) for name, frames in pairs if frames)

    @classmethod
    def from_json(cls, text: str) -> ShardInfo:
        """Reads what `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        quarantine = tuple(Quarantined(**entry) for entry in values.pop("quarantine"))
        for key, value in values.items():
            values[key] = tuple(value) if isinstance(value, list) else value
        return cls(**values, quarantine=quarantine)


def split_shards(directory: str | os.PathLike[str], split: str) -> Iterator[ShardInfo]:
    """What is known of every finished shard of a split, in order, read one at a time."""
    number = re.compile(rf"{re.escape(split)}-(\d+)\.json")
    found = (number.fullmatch(path.name) for path in (Path(directory) / SHARD_INFO).glob("*.json"))
    for index in sorted(int(match[1]) for match in found if match):
        path = shard_info_path(Path(directory), split, index)
        yield ShardInfo.from_json(path.read_text("utf-8"))


@dataclasses.dataclass(frozen=True, eq=False)
class SplitNotes:
    """What a run needs to know of a split's records before it opens one: 3 bytes a record.

    Attributes:
      fingerprint: hash of the ids and of what the shards were made from.
      size: side of the frames, in pixels; a dataset has one.
      lengths: records of each shard.
      trajectories: of each record; label maps are uint16, so there are no more.
      first_with: every number of frames that occurs, with the number of the first such record.
    """

    fingerprint: str
    size: int
    lengths: Int64[np.ndarray, " shards"]
    trajectories: UInt16[np.ndarray, " b"]
    first_with: Mapping[int, int]

    @classmethod
    def read(cls, directory: str | os.PathLike[str], split: str) -> SplitNotes:
        """Reads the note beside each shard once."""
        digest, size, lengths, counts = hashlib.sha256(b"["), 0, [], [np.zeros(0, np.uint16)]
        first_with: dict[int, int] = {}
        records = 0
        for info in split_shards(directory, split):
            made_from = [info.index, info.ids, info.settings, info.inputs]
            digest.update((", " if lengths else "").encode() + to_json(made_from).encode())
            for number, frames in enumerate(info.frames, start=records):
                first_with.setdefault(frames, number)
            records += len(info.ids)
            size = info.size
            lengths.append(len(info.ids))
            counts.append(np.array(info.trajectories, np.uint16))
        digest.update(b"]")
        return cls(
            fingerprint=digest.hexdigest()[:16],
            size=size,
            lengths=np.array(lengths, np.int64),
            trajectories=np.concatenate(counts),
            first_with=first_with,
        )


def finished_shards(directory: str | os.PathLike[str]) -> list[ShardInfo]:
    """What is known of every finished shard of a dataset, by split and index."""
    paths = (Path(directory) / SHARD_INFO).glob("[!.]*.json")
    infos = [ShardInfo.from_json(path.read_text("utf-8")) for path in paths]
    return sorted(infos, key=lambda info: (info.split, info.index))
