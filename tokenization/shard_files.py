"""The files of a dataset of records: their names, and reading from many with few of them open."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

DATASET = "trajectory_records"
SHARD_INFO = "shards"  # folder of one JSON file a finished shard

# Of one source in one process. The usual limit is 1,024 files a process, which several sources,
# checkpoints and sockets share; a global shuffle over more shards than this finds few of them open.
MOST_OPEN = 128


def shard_path(directory: Path, split: str, index: int) -> Path:
    """File of a shard. TFDS itself expects longer numbers from 100,000 shards on."""
    return directory / f"{DATASET}-{split}.array_record-{index:05d}"


def shard_info_path(directory: Path, split: str, index: int) -> Path:
    """File that says that a shard is finished."""
    return directory / SHARD_INFO / f"{split}-{index:05d}.json"


def journal_path(directory: Path, split: str, index: int) -> Path:
    """File of what is done of a shard that is not finished."""
    return directory / SHARD_INFO / f"{split}-{index:05d}.journal"


def journals(directory: Path, split: str) -> list[Path]:
    """Those of a split that are there."""
    return sorted((Path(directory) / SHARD_INFO).glob(f"{split}-*.journal"))


def unfinished_path(directory: Path, split: str) -> Path:
    """File that is there from the first new shard of a split until all are written."""
    return directory / SHARD_INFO / f"{split}.unfinished"


def unfinished_splits(directory: Path) -> list[str]:
    """Splits whose extraction runs, or was cut off."""
    return sorted(path.stem for path in (Path(directory) / SHARD_INFO).glob("*.unfinished"))


def missing_shard(directory: Path, split: str, shards: int) -> Path | None:
    """The first shard whose file is not there, by one listing of the folder."""
    names = {path.name for path in Path(directory).iterdir()}
    paths = (shard_path(directory, split, index) for index in range(shards))
    return next((path for path in paths if path.name not in names), None)


class ShardFiles(Sequence[bytes]):
    """The serialized records of a split, at random; for threads, and picklable.

    At most `MOST_OPEN` shards stay open, the last ones that were read. (The data source of
    array_record keeps every shard open that it ever read.)
    """

    def __init__(self, directory: Path, split: str, lengths: Iterable[int]) -> None:
        """Args: the dataset's folder, a split, and the records of each of its shards."""
        self._directory, self._split = directory, split
        self._ends = np.cumsum(np.fromiter(lengths, np.int64))
        self._forget()

    def _forget(self) -> None:
        self._open: collections.OrderedDict[int, Any] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_directory", "_split", "_ends")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, number: SupportsIndex) -> bytes:  # type: ignore[override]  # no slices
        shard, place = self._place(number.__index__())
        return self._reader(shard).read([place])[0]

    def __getitems__(self, numbers: Sequence[SupportsIndex]) -> list[bytes]:
        """Several records, those of one shard at once: TFDS's name for it."""
        of_shard: dict[int, list[tuple[int, int]]] = {}
        for order, number in enumerate(numbers):
            shard, place = self._place(number.__index__())
            of_shard.setdefault(shard, []).append((place, order))
        found = [b""] * len(numbers)
        for shard, wanted in of_shard.items():
            records = self._reader(shard).read([place for place, _ in wanted])
            for (_, order), record in zip(wanted, records, strict=True):
                found[order] = record
        return found

    def _place(self, number: int) -> tuple[int, int]:
        """Shard of a record, and its number in there."""
        if not 0 <= number < len(self):
            raise IndexError(f"there is no record {number} among {len(self)}")
        shard = int(np.searchsorted(self._ends, number, side="right"))
        return shard, number - (int(self._ends[shard - 1]) if shard else 0)

    def _reader(self, shard: int) -> Any:
        """Who holds it may read, also when it is no longer kept here; it closes with the last."""
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
        reader = _open_shard(shard_path(self._directory, self._split, shard))
        with self._lock:  # another thread may have opened it meanwhile
            reader = self._open.setdefault(shard, reader)
            self._open.move_to_end(shard)
            oldest = self._open.popitem(last=False) if len(self._open) > MOST_OPEN else None
        del oldest  # outside the lock: it closes the file
        return reader


def _open_shard(path: Path) -> Any:
    from array_record.python.array_record_module import ArrayRecordReader

    # As array_record's data source does: each read is of one place.
    return ArrayRecordReader(
        os.fspath(path), options="readahead_buffer_size:0", file_reader_buffer_size=2**15
    )
