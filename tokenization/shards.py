"""Writes datasets of records, shard by shard, so that a killed run never leaves half of one.

A shard is written under a temporary name and renamed; then a small JSON file (`ShardInfo`)
says that it is finished. The TFDS metadata, `quarantine.jsonl` and `stats.md` are gathered from
these files.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tokenization import missing, records
from tokenization.files import replacing, write_text
from tokenization.records import VERSION, Record, ShardInfo
from tokenization.shard_files import (
    DATASET,
    SHARD_INFO,
    journals,
    shard_info_path,
    shard_path,
    unfinished_path,
    unfinished_splits,
)
from tokenization.summary import some

_TEMPLATE = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}"
_INFO = "dataset_info.json"
_HISTOGRAM_BINS = 12
_LISTED = 1000  # videos to look at of a kind: of millions, a page lists no more


@functools.lru_cache(maxsize=4)
def serializer(size: int) -> tuple[Any, Any]:
    """What `serialize` needs for frames of a size, imported and made.

    Processes whose threads serialize call it before: two threads that import TensorFlow Datasets
    at once may wait for each other for ever.
    """
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = records.features(size)
    return features, ExampleSerializer(features.get_serialized_info())


def serialize(record: Record) -> bytes:
    """The bytes that a shard holds of a record, the same in every process.

    Raises:
      ValueError: frames that are not square.
    """
    height, width = record.frames.shape[1:3]
    if height != width:
        raise ValueError(f"record {record.id!r} is {width}x{height}; make it with Record.squash")
    features, writer = serializer(height)
    example = writer.get_tf_example(features.encode_example(records.encode(record)))
    # Else the order of its features depends on the process.
    return example.SerializeToString(deterministic=True)


def write_shard(directory: str | os.PathLike[str], info: ShardInfo, data: Sequence[bytes]) -> None:
    """Writes serialized records as one finished shard, replacing an older one.

    A reader, or the next run after a crash, sees the old shard, none, or all of the new one.

    Raises:
      OSError: the disk is full or cannot be written; nothing is left behind.
      ValueError: `info` describes another number of records.
    """
    directory = Path(directory)
    if not len(data) == len(info.ids) == len(info.trajectories) == len(info.frames):
        raise ValueError(f"shard {info.split}-{info.index}: {len(data)} records, not as described")
    info_path = shard_info_path(directory, info.split, info.index)
    info_path.unlink(missing_ok=True)
    with replacing(shard_path(directory, info.split, info.index), lasting=True) as partial:
        _write_array_record(partial, data)
    info = dataclasses.replace(info, bytes=sum(map(len, data)))
    write_text(info_path, info.to_json())


def _write_array_record(path: Path, data: Iterable[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        writer = ArrayRecordWriter(os.fspath(path), "group_size:1")
        for example in data:
            writer.write(example)
        writer.close()
    except RuntimeError as error:
        raise OSError(
            f"{path.parent}: a shard cannot be written ({error}); free disk space and run again: "
            "what is finished is kept"
        ) from error


def read_shard(directory: str | os.PathLike[str], info: ShardInfo) -> list[bytes]:
    """The serialized records of a finished shard, in order.

    Raises:
      OSError: it cannot be read, or holds others than its note says.
    """
    from array_record.python.array_record_module import ArrayRecordReader

    path = shard_path(Path(directory), info.split, info.index)
    reason: object = "it holds others than its note says"
    try:
        reader = ArrayRecordReader(os.fspath(path), options="readahead_buffer_size:0")
        data: list[bytes] = reader.read_all() if reader.num_records() else []
    except (RuntimeError, ValueError, IndexError) as error:
        reason, data = error, []
    if (len(data), sum(map(len, data))) != (len(info.ids), info.bytes):
        raise OSError(
            f"{path}: its records cannot be kept ({reason}); if the disk is in order, remove this "
            "file and run again: its videos are done again"
        )
    return data


def remove_split(directory: str | os.PathLike[str], split: str) -> None:
    """Removes all of a split; its metadata go first, so that nobody reads what is left."""
    directory = Path(directory)
    (directory / _INFO).unlink(missing_ok=True)
    for info in records.finished_shards(directory):
        if info.split == split:
            remove_shard(directory, info)
    for path in [*journals(directory, split), unfinished_path(directory, split)]:
        path.unlink(missing_ok=True)
    missing.forget(directory, split)


def remove_shard(directory: str | os.PathLike[str], info: ShardInfo) -> None:
    """Removes a shard; the metadata that count it are the caller's."""
    directory = Path(directory)
    shard_info_path(directory, info.split, info.index).unlink(missing_ok=True)
    shard_path(directory, info.split, info.index).unlink(missing_ok=True)


def write_records(
    directory: str | os.PathLike[str],
    videos: Iterable[Record],
    *,
    split: str = "train",
    shard_size: int = 64,
) -> None:
    """Writes a whole split from records in memory, replacing an older one.

    Raises:
      OSError: the disk is full or cannot be written.
      ValueError: two records with the same id, or sizes that differ.
    """
    directory = Path(directory)
    remove_split(directory, split)
    seen: set[str] = set()
    batch: list[Record] = []
    index = size = 0

    def flush() -> None:
        info = ShardInfo(
            split,
            index,
            batch[0].frames.shape[1],
            ids=tuple(record.id for record in batch),
            trajectories=tuple(len(record.trajectories) for record in batch),
            frames=tuple(len(record.frames) for record in batch),
        )
        write_shard(directory, info, [serialize(record) for record in batch])

    for record in videos:
        if record.id in seen:
            raise ValueError(f"two records have the id {record.id!r}; ids are unique in a dataset")
        seen.add(record.id)
        side = record.frames.shape[1]
        size = size or side
        if side != size:
            raise ValueError(
                f"record {record.id!r} has frames of {side} pixels, those before it of {size}; "
                "records of a dataset have one size"
            )
        batch.append(record)
        if len(batch) == shard_size:
            flush()
            batch, index = [], index + 1
    if batch:
        flush()
    write_metadata(directory)


def write_metadata(directory: str | os.PathLike[str]) -> None:
    """Writes the TFDS metadata, `quarantine.jsonl` and `stats.md` of the finished splits.

    Raises:
      ValueError: shards of different sizes, or a gap in their numbers.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.dataset_info import DatasetIdentity
    from tensorflow_datasets.core.splits import SplitDict

    directory = Path(directory)
    unfinished = unfinished_splits(directory)
    infos = [info for info in records.finished_shards(directory) if info.split not in unfinished]
    sizes = {info.size for info in infos}
    if len(sizes) != 1:
        raise ValueError(f"{directory}: shards must be there and of one size, found {sizes or 0}")
    by_split: dict[str, list[ShardInfo]] = {}
    for info in infos:
        by_split.setdefault(info.split, []).append(info)
    splits = []
    for split, shards in by_split.items():
        if [info.index for info in shards] != list(range(len(shards))):
            raise ValueError(f"{directory}: shards of split {split!r} are missing; run again")
        template = tfds.core.ShardedFileTemplate(
            os.fspath(directory),  # type: ignore[arg-type]  # made a path of its own kind there
            template=_TEMPLATE,
            dataset_name=DATASET,
            split=split,
            filetype_suffix="array_record",
        )
        splits.append(
            tfds.core.SplitInfo(
                name=split,
                shard_lengths=[len(info.ids) for info in shards],
                num_bytes=sum(info.bytes for info in shards),
                filename_template=template,
            )
        )
    identity = DatasetIdentity(
        name=DATASET,
        version=tfds.core.Version(VERSION),
        data_dir=os.fspath(directory),
        module_name=records.__name__,
    )
    dataset = tfds.core.DatasetInfo(
        builder=identity,
        description="Videos and their panoptic sub-object trajectories.",
        features=records.features(sizes.pop()),
    )
    dataset.set_file_format("array_record")
    dataset.set_splits(SplitDict(splits))
    lines = [
        records.to_json({**dataclasses.asdict(entry), "split": info.split}) + "\n"
        for info in infos
        for entry in info.quarantine
    ]
    for name, text in {"quarantine.jsonl": "".join(lines), "stats.md": stats(infos)}.items():
        write_text(directory / name, text)
    _write_dataset_info(directory, dataset)


def _write_dataset_info(directory: Path, dataset: Any) -> None:
    """What TFDS reads, each file renamed into place, last `dataset_info.json`: all is there."""
    with tempfile.TemporaryDirectory(
        prefix=".metadata.", suffix=f".{os.getpid()}.partial", dir=directory
    ) as staging:
        dataset.write_to_directory(staging)
        for path in sorted(Path(staging).iterdir(), key=lambda path: path.name == _INFO):
            path.replace(directory / path.name)


def stats(infos: Sequence[ShardInfo]) -> str:
    """Markdown page: counts of every split, videos to look at, trajectories a video."""
    lines = ["# Trajectory records", ""]
    lines += ["| split | videos | frames | trajectories a video | quarantined | MB |"]
    lines += ["| --- | ---: | ---: | ---: | ---: | ---: |"]
    for split in sorted({info.split for info in infos}):
        shards = [info for info in infos if info.split == split]
        counts = [count for info in shards for count in info.trajectories]
        lines.append(
            f"| {split} | {len(counts)} | {sum(sum(info.frames) for info in shards)} | "
            f"{np.mean(counts) if counts else 0:.1f} | "
            f"{sum(len(info.quarantine) for info in shards)} | "
            f"{sum(info.bytes for info in shards) / 1e6:.1f} |"
        )
    for title, names in {
        "Without any trajectory": [name for info in infos for name in info.empty],
        "With damaged frames (how many)": [
            f"{name} ({frames})" for info in infos for name, frames in info.with_damage
        ],
        "With fewer frames than asked": [name for info in infos for name in info.short],
    }.items():
        if names:
            listed = some(names, most=_LISTED, where=f"{SHARD_INFO}/*.json")
            lines += ["", f"{title}: {listed}"]
    counts = np.array([count for info in infos for count in info.trajectories])
    if counts.size:
        lines += ["", "Trajectories a video:", "", "```"]
        edges = np.unique(
            np.linspace(counts.min(), counts.max() + 1, _HISTOGRAM_BINS + 1).astype(int)
        )
        heights, _ = np.histogram(counts, edges)
        for low, high, videos in zip(edges[:-1], edges[1:], heights, strict=True):
            bar = "#" * round(40 * videos / heights.max())
            lines.append(f"{low:5d} to {high - 1:5d} | {bar} {videos}")
        lines.append("```")
    return "\n".join([*lines, ""])
