"""Records of a split at random, or their captions alone, without TensorFlow."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from jaxtyping import Int64

from tokenization.folder_lock import writer_of
from tokenization.record import Record, decode, text_of
from tokenization.shard_files import (
    DATASET,
    SHARD_INFO,
    ShardFiles,
    missing_shard,
    unfinished_splits,
)
from tokenization.shard_notes import SplitNotes


class RecordsError(ValueError):
    """A folder that is no readable dataset of records; the message says which and what to do."""


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
        return decode(self._examples[_position(self, index)])

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

    def __repr__(self) -> str:
        return f"CaptionSource({len(self)} records)"

    @overload
    def __getitem__(self, index: SupportsIndex) -> tuple[str, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[str, ...]]: ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        example = self._features.deserialize_example_np(self._bytes[_position(self, index)])
        return tuple(text_of(caption) for caption in example["captions"])


def open_captions(directory: str | os.PathLike[str], split: str = "train") -> CaptionSource:
    """Opens the captions of a split.

    Raises:
      RecordsError: as `open_records`.
    """
    return CaptionSource(_open_dataset(Path(directory), split))


def _position(source: Sequence[object], index: SupportsIndex) -> int:
    """A record's number from the start; negative ones count from the end."""
    position = index.__index__()
    position += len(source) if position < 0 else 0
    if not 0 <= position < len(source):
        raise IndexError(f"{source!r} has no record {index}")
    return position


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
