"""Records: one video with its trajectories as an example of a TFDS dataset.

A dataset is a folder of ArrayRecord shards with TFDS metadata, so that
`tfds.builder_from_directory(folder).as_data_source()` reads it, without TensorFlow;
`open_records` reads it as `Record`s. `tokenization.shards` writes it.

Label maps are zlib-compressed uint16: on 16 maps of 256x256 with 50 trajectories that took
52 KiB and 4 ms to read, 16-bit PNG 64 to 96 KiB and 7 ms.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import cv2
import numpy as np
from jaxtyping import Float32, Int64, UInt8, UInt16

from tokenization.folder_lock import writer_of
from tokenization.shard_files import (
    DATASET,
    SHARD_INFO,
    ShardFiles,
    missing_shard,
    shard_info_path,
    unfinished_splits,
)
from tokenization.trajectories import Trajectories, VideoInfo

VERSION = "1.0.0"
JPEG_QUALITY = 90


class RecordsError(ValueError):
    """A folder that is no readable dataset of records; the message says which and what to do."""


@dataclasses.dataclass(frozen=True, eq=False)
class Boxes:
    """Annotated boxes of a video, not those of its trajectories.

    Attributes:
      corners: (x0, y0, x1, y1) / (width, height), max exclusive.
      times: seconds from the start of the video.
      labels: one a box.
    """

    corners: Float32[np.ndarray, "m 4"]
    times: Float32[np.ndarray, " m"]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not len(self.corners) == len(self.times) == len(self.labels):
            raise ValueError(
                f"{len(self.corners)} boxes, {len(self.times)} times and "
                f"{len(self.labels)} labels must agree"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """One video of a dataset.

    Attributes:
      trajectories: labels at the size of the record.
      frames: RGB, squashed to the size of the record.
      captions: none, one or several.
      label: class name, or None.
      boxes: annotated boxes, or None.
      extra: what else the manifest said (JSON values only).
    """

    trajectories: Trajectories
    frames: UInt8[np.ndarray, "t h w 3"]
    captions: tuple[str, ...] = ()
    label: str | None = None
    boxes: Boxes | None = None
    extra: Mapping[str, object] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.frames.shape[:3] != self.trajectories.labels.shape:
            raise ValueError(
                f"record {self.id!r}: frames {list(self.frames.shape)} and labels "
                f"{list(self.trajectories.labels.shape)} must have the same t, h and w"
            )

    @property
    def id(self) -> str:
        """Name of the video, unique within the dataset."""
        return self.trajectories.video.id

    @classmethod
    def squash(
        cls,
        trajectories: Trajectories,
        frames: UInt8[np.ndarray, "t height width 3"],
        *,
        size: int = 256,
        **annotations: Any,
    ) -> Record:
        """Squashes frames (area) and labels (nearest) to `size` x `size`, aspect ignored.

        The sizes of frames and labels may differ; `annotations` are the fields after `frames`.
        """
        small = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA) for frame in frames]
        return cls(trajectories.resize(size, size), np.stack(small), **annotations)

    def as_stored(self) -> Record:
        """The record as it comes back from a shard: its frames were JPEG (lossy)."""
        back = [cv2.imdecode(_to_jpeg(frame), cv2.IMREAD_COLOR) for frame in self.frames]
        rgb = [cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) for frame in back]
        return dataclasses.replace(self, frames=np.stack(rgb))


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


def provenance(record: Record) -> str:
    """Hash of what the record was made from and how: video facts, frame times, `made_by`."""
    trajectories = record.trajectories
    digest = hashlib.sha256(
        to_json([dataclasses.asdict(trajectories.video), dict(trajectories.made_by)]).encode()
    )
    digest.update(trajectories.frame_times.tobytes())
    return digest.hexdigest()[:16]


def to_json(value: object) -> str:
    """JSON with sorted keys, for hashes and storage."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def short_hash(value: object) -> str:
    """Hash of a JSON value: 16 hexadecimal digits."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()[:16]


def features(size: int) -> Any:
    """The TFDS features of a record whose frames are `size` x `size`."""
    import tensorflow_datasets as tfds

    f = tfds.features
    return f.FeaturesDict(
        {
            "id": f.Text(),
            "frames": f.Sequence(f.Image(shape=(size, size, 3), encoding_format="jpeg")),
            "labels": f.Tensor(shape=(None, size, size), dtype=np.uint16, encoding="zlib"),
            "trajectories": f.Scalar(dtype=np.int32, doc="number of trajectories"),
            "frame_times": f.Tensor(shape=(None,), dtype=np.float32),
            "key_frames": f.Tensor(shape=(None,), dtype=np.bool_),
            "captions": f.Sequence(f.Text()),
            "label": f.Text(doc="class name; empty = none"),
            "boxes": f.Tensor(shape=(None, 4), dtype=np.float32, encoding="zlib"),
            "box_times": f.Tensor(shape=(None,), dtype=np.float32),
            "box_labels": f.Sequence(f.Text()),
            "video": f.Text(doc="JSON: id, width, height, fps, duration"),
            "made_by": f.Text(doc="JSON: segmenter, tracker, settings"),
            "extra": f.Text(doc="JSON: other keys of the manifest"),
            "provenance": f.Text(doc="hash of video and made_by"),
        }
    )


def _to_jpeg(frame: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, " _"]:
    quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1]


def encode(record: Record) -> dict[str, Any]:
    """The record as a dict for `features(size).encode_example`; frames become JPEG (lossy)."""
    trajectories, boxes = record.trajectories, record.boxes
    if boxes is None:
        boxes = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), ())
    return {
        "id": record.id,
        "frames": [_to_jpeg(frame).tobytes() for frame in record.frames],
        "labels": trajectories.labels,
        "trajectories": len(trajectories),
        "frame_times": trajectories.frame_times,
        "key_frames": trajectories.key_frames,
        "captions": list(record.captions),
        "label": record.label or "",
        "boxes": boxes.corners,
        "box_times": boxes.times,
        "box_labels": list(boxes.labels),
        "video": to_json(dataclasses.asdict(trajectories.video)),
        "made_by": to_json(dict(trajectories.made_by)),
        "extra": to_json(dict(record.extra)),
        "provenance": provenance(record),
    }


def decode(example: Mapping[str, Any]) -> Record:
    """Reads an example of a TFDS data source."""
    trajectories = Trajectories(
        labels=np.asarray(example["labels"]),
        frame_times=np.asarray(example["frame_times"], np.float32),
        key_frames=np.asarray(example["key_frames"], np.bool_),
        video=VideoInfo(**json.loads(_text(example["video"]))),
        made_by=json.loads(_text(example["made_by"])),
    )
    corners = np.asarray(example["boxes"], np.float32).reshape(-1, 4)
    boxes = Boxes(
        corners,
        np.asarray(example["box_times"], np.float32).reshape(-1),
        tuple(_text(label) for label in example["box_labels"]),
    )
    return Record(
        trajectories=trajectories,
        frames=np.stack(example["frames"]),
        captions=tuple(_text(caption) for caption in example["captions"]),
        label=_text(example["label"]) or None,
        boxes=boxes if len(corners) else None,
        extra=json.loads(_text(example["extra"])),
    )


def _text(value: bytes | str) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value


class RecordSource(Sequence[Record]):
    """Random access to the records of a split; picklable, so that loaders may use processes."""

    def __init__(self, directory: Path, split: str, examples: Any) -> None:
        self.directory = directory
        self.split = split
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: SupportsIndex) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index.__index__()
        position += len(self) if position < 0 else 0
        if not 0 <= position < len(self):
            raise IndexError(f"{self!r} has no record {index}")
        return decode(self._examples[position])

    def __repr__(self) -> str:
        return f"RecordSource({str(self.directory)!r}, {self.split!r}, {len(self)} records)"

    @functools.cached_property
    def notes(self) -> SplitNotes:
        """What the notes beside the shards say; read once, without opening a record.

        Raises:
          RecordsError: they describe other records than there are.
        """
        notes = SplitNotes.read(self.directory, self.split)
        if len(notes.trajectories) != len(self):
            raise RecordsError(
                f"{self.directory / SHARD_INFO} describes {len(notes.trajectories)} records of "
                f"split {self.split!r}, the shards hold {len(self)}; run the extraction again"
            )
        return notes

    @property
    def fingerprint(self) -> str:
        """Hash of the split's ids and of what its shards were made from."""
        return self.notes.fingerprint

    @property
    def counts(self) -> Int64[np.ndarray, " b"]:
        """Trajectories of every record, in order."""
        return self.notes.trajectories.astype(np.int64)


def open_records(directory: str | os.PathLike[str], split: str = "train") -> RecordSource:
    """Opens a split of a dataset of records.

    Raises:
      RecordsError: no such folder, no dataset of records in it, no such split, no record in
        it, or a shard that is missing.
    """
    return RecordSource(Path(directory), split, _open_dataset(Path(directory), split))


def read_captions(
    directory: str | os.PathLike[str], split: str = "train", *, most: int | None = None
) -> Iterator[tuple[str, ...]]:
    """Captions of every record, in order; frames and label maps are read, but not decoded.

    Args:
      directory: of the dataset.
      split: of it.
      most: of more records, so many that lie evenly spread are read; None = all.

    Raises:
      RecordsError: as `open_records`.
    """
    captions = open_captions(directory, split)
    count = len(captions)
    for place in range(count if most is None else min(count, most)):
        yield captions[place if most is None or count <= most else place * count // most]


class CaptionSource(Sequence[tuple[str, ...]]):
    """Random access to the captions of a split; frames and label maps are not decoded."""

    def __init__(self, examples: Any) -> None:
        import tensorflow_datasets as tfds

        self._bytes = examples.data_source
        self._features: Any = tfds.features.FeaturesDict(
            {"captions": tfds.features.Sequence(tfds.features.Text())}
        )

    def __len__(self) -> int:
        return len(self._bytes)

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, ...]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        example = self._features.deserialize_example_np(self._bytes[index.__index__()])
        return tuple(_text(caption) for caption in example["captions"])


def open_captions(directory: str | os.PathLike[str], split: str = "train") -> CaptionSource:
    """Opens the captions of a split.

    Raises:
      RecordsError: as `open_records`.
    """
    return CaptionSource(_open_dataset(Path(directory), split))


def _open_dataset(directory: Path, split: str) -> Any:
    """TFDS's data source of a split, which reads its shards through `ShardFiles`."""
    import tensorflow_datasets as tfds

    if split in unfinished_splits(directory):
        if writer := writer_of(directory):
            raise RecordsError(
                f"split {split!r} of {directory} is being written by another process {writer}; "
                "wait for it to end"
            )
        raise RecordsError(
            f"the extraction of split {split!r} into {directory} is not finished; run the same "
            "command again: it goes on from there"
        )
    if not (directory / "dataset_info.json").is_file():
        if directory.is_dir():
            raise RecordsError(
                f"{directory} is a folder without records (it has no dataset_info.json); of a "
                "folder of videos, they are written into another one with `python -m "
                f"tokenization.extract --input={directory} --output=RECORDS`"
            )
        raise RecordsError(
            f"{directory} does not exist; write records with "
            f"`python -m tokenization.extract --input=... --output={directory}`"
        )
    builder: Any = tfds.builder_from_directory(os.fspath(directory))
    if builder.name != DATASET:
        raise RecordsError(f"{directory} holds the dataset {builder.name!r}, not {DATASET!r}")
    if split not in builder.info.splits:
        known = ", ".join(builder.info.splits) or "none"
        raise RecordsError(f"{directory} has no split {split!r}; it has: {known}")
    if not builder.info.splits[split].num_examples:
        raise RecordsError(
            f"{directory} has no record in split {split!r}; see {directory / 'quarantine.jsonl'}"
        )
    lengths = builder.info.splits[split].shard_lengths
    if missing := missing_shard(directory, split, len(lengths)):
        raise RecordsError(f"{missing} is missing; run the extraction again, or copy it")
    examples = builder.as_data_source(split=split)
    examples.data_source = ShardFiles(directory, split, lengths)
    return examples
