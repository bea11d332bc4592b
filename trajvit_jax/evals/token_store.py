"""Tokens of samples, one sample after the other: in memory, or in a folder that keeps them.

A folder holds values.bin (numbers alone), starts.npy and about.json (what they depend on, and
notes), which is written last: where it is, all is whole.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import Bool, Float, Int64

from tokenization.files import replacing, write_text
from trajvit_jax.run.memory import free_memory

_VALUES, _STARTS, _ABOUT = "values.bin", "starts.npy", "about.json"
_CACHE_LINE = 64  # bytes


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """Tokens of samples, one sample after the other.

    Attributes:
      values: layer-normalized; in memory, or mapped from a file.
      starts: the first token of each sample, and at the end the number of all.
    """

    values: Float[np.ndarray, "tokens d"]
    starts: Int64[np.ndarray, " starts"]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def width(self) -> int:
        """Of a token."""
        return self.values.shape[1]

    @property
    def lengths(self) -> Int64[np.ndarray, " samples"]:
        """Tokens of each sample."""
        return np.diff(self.starts)

    @property
    def longest(self) -> int:
        """Most tokens of a sample."""
        return int(self.lengths.max(initial=0))

    @property
    def mean(self) -> float:
        """Tokens of a sample, on average."""
        return float(self.lengths.mean())

    def batch(
        self, samples: Int64[np.ndarray, " b"], length: int
    ) -> tuple[Float[np.ndarray, "b length d"], Bool[np.ndarray, "b length"]]:
        """Some samples, filled up to one length, and which tokens are theirs; as they are kept."""
        values = _aligned((len(samples), length, self.width), self.values.dtype)
        used = np.zeros((len(samples), length), bool)
        for row, sample in enumerate(samples.tolist()):
            first, last = self.starts[sample], self.starts[sample + 1]
            values[row, : last - first] = self.values[first:last]
            values[row, last - first :] = 0
            used[row, : last - first] = True
        return values, used

    def with_tokens(self) -> Features:
        """Those samples alone that have tokens: the same numbers, other starts."""
        full = self.starts[:-1][self.lengths > 0]
        return Features(self.values, np.append(full, self.starts[-1]))

    @classmethod
    def of(cls, samples: Iterable[Float[np.ndarray, "_ d"]]) -> Features:
        """Of samples in memory, one at least."""
        samples = list(samples)
        starts = np.cumsum([0, *map(len, samples)], dtype=np.int64)
        return cls(np.concatenate(samples), starts)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialized memory that JAX takes for a CPU's array as it is; other memory it copies."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


class Store:
    """Takes tokens batch by batch.

    Once a batch is there, it tells whether all will have room: before memory or disk is full.

    Args:
      width: of a token.
      records: how many there will be, with one sample or several.
      folder: that keeps the tokens; '' = they stay in memory.
      dtype: in which they are kept.
    """

    def __init__(
        self, width: int, records: int, *, folder: str | os.PathLike[str], dtype: str
    ) -> None:
        self._width, self._records, self._dtype = width, records, np.dtype(dtype)
        self._folder, self._file = folder, None
        self._lengths: list[int] = []
        self._used = 0  # tokens
        self._values = np.empty((0, width), self._dtype)

    @contextlib.contextmanager
    def open(self) -> Iterator[Store]:
        """Within this samples can be added; the folder's file is whole afterwards, or not there."""
        with contextlib.ExitStack() as stack:
            self._file = _values_file(stack, self._folder)
            yield self

    def add(self, samples: Iterable[Float[np.ndarray, "_ d"]], *, done: int) -> None:
        """Keeps the samples of a batch.

        Args:
          samples: some of which may have no tokens.
          done: records that are read with these.

        Raises:
          ValueError: all of them will be more than there is room for.
          OSError: storage that cannot be written.
        """
        samples = [np.ascontiguousarray(one, self._dtype) for one in samples]
        self._lengths += map(len, samples)
        tokens = self._used + sum(map(len, samples))
        all_tokens = math.ceil(tokens * self._records / max(1, done))
        self._check_room(all_tokens - self._used)
        if self._file is not None:
            for one in samples:
                self._file.write(one.data)
        else:
            if tokens > len(self._values):  # what is not written yet takes no memory
                grown = np.empty((max(tokens, round(1.05 * all_tokens)), self._width), self._dtype)
                grown[: self._used] = self._values[: self._used]
                self._values = grown
            place = self._used
            for one in samples:
                self._values[place : place + len(one)] = one
                place += len(one)
        self._used = tokens

    def _check_room(self, to_come: int) -> None:
        each = self._width * self._dtype.itemsize
        if self._file is not None:
            free: int | None = shutil.disk_usage(_standing(Path(self._folder))).free
            where, remedy = f"free in {self._folder}", "name a folder with more room"
        else:
            free, where = free_memory(), "of memory free"
            remedy = "keep them in a folder, --features=FOLDER"
        if free is None or to_come * each <= free:
            return
        if self._dtype.itemsize > 2:
            remedy += ", or take half, --feature-dtype=float16"
        raise ValueError(
            f"tokens of {self._records:,} records will take about {to_come * each / 1e9:,.1f} GB "
            f"more, {free / 1e9:,.1f} GB are {where}: {remedy}"
        )

    def kept(self, about: Mapping[str, Any], notes: Any) -> Features:
        """All that was added; a folder is made whole first, in all processes.

        Args:
          about: what the tokens depend on, as JSON.
          notes: of the samples, as JSON.

        Raises:
          OSError: storage that cannot be written or read.
        """
        if not self._folder:
            return Features(self._values[: self._used], self._starts())
        if jax.process_index() == 0:
            folder = Path(self._folder)
            with replacing(folder / _STARTS) as partial, partial.open("wb") as file:
                np.save(file, self._starts(), allow_pickle=False)
            noted = {"about": about, "width": self._width, "notes": notes}
            write_text(folder / _ABOUT, json.dumps(noted) + "\n")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("features")
        found = read(self._folder, about)
        assert found is not None  # just written
        return found[0]

    def _starts(self) -> np.ndarray:
        return np.cumsum([0, *self._lengths], dtype=np.int64)


def read(folder: str | os.PathLike[str], about: Mapping[str, Any]) -> tuple[Features, Any] | None:
    """What a folder holds, and its notes; None where it holds nothing whole.

    Args:
      folder: that a `Store` filled.
      about: what the tokens must depend on.

    Raises:
      ValueError: it holds features of something else.
      OSError: storage that cannot be read.
    """
    folder = Path(folder)
    if not (folder / _ABOUT).is_file():
        return None
    noted = json.loads((folder / _ABOUT).read_text("utf-8"))
    wanted = json.loads(json.dumps(about))
    if noted["about"] != wanted or "notes" not in noted:
        differing = [
            f"{name}: {noted['about'].get(name)!r}, not {value!r}"
            for name, value in wanted.items()
            if noted["about"].get(name) != value
        ]
        differing = differing or ["written by another version of this program"]
        raise ValueError(
            f"{folder} holds features of something else ({'; '.join(differing)}); name another "
            "folder, or remove it"
        )
    starts = np.load(folder / _STARTS, allow_pickle=False)
    shape = (int(starts[-1]), noted["width"])
    if not shape[0]:  # an empty file cannot be mapped
        return Features(np.zeros(shape, about["dtype"]), starts), noted["notes"]
    values = np.memmap(folder / _VALUES, dtype=about["dtype"], mode="r", shape=shape)
    return Features(values, starts), noted["notes"]


def _values_file(stack: contextlib.ExitStack, folder: str | os.PathLike[str]) -> IO[bytes] | None:
    if not folder:
        return None
    if jax.process_index() > 0:  # process 0 writes for all
        return stack.enter_context(open(os.devnull, "wb"))  # noqa: PTH123
    partial = stack.enter_context(replacing(Path(folder) / _VALUES))
    return stack.enter_context(partial.open("wb"))


def _standing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
