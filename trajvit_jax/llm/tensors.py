"""Safetensors in shards: read through the memory map, written one tensor at a time.

    FOLDER/model.safetensors                          one file, or
    FOLDER/model-00001-of-00004.safetensors, ..       several, and
    FOLDER/model.safetensors.index.json               which tensor is in which

Nothing is read before it is asked for, and nothing is kept: a tensor of 2 GB costs a host what
is asked of it.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from tokenization.files import replacing, write_text
from trajvit_jax.convert.contents import CheckpointError, Content, content_of
from trajvit_jax.convert.shard_index import read_index

ONE, INDEX = "model.safetensors", "model.safetensors.index.json"
_DTYPES: Mapping[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_SHARD = 5 * 10**9  # bytes, as transformers cuts


class Tensors(Mapping[str, np.ndarray]):
    """The tensors of a folder or file by name, as views of the memory map.

    Raises:
      FileNotFoundError: no such folder or file, or a shard that the index names is missing.
      CheckpointError: what is there is no safetensors, is damaged, or the index does not fit it.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        self._views: dict[str, np.ndarray] = {}
        for file, names in _files(self.path).items():
            views = _views(file)
            lacking = [name for name in names or () if name not in views]
            if lacking:
                raise CheckpointError(
                    f"{self.path / INDEX} says that {lacking[0]!r} is in {file.name}, which lacks "
                    f"it ({len(lacking)} such tensors); download both again"
                )
            self._views |= {name: views[name] for name in names or views}

    def __getitem__(self, name: str) -> np.ndarray:
        return self._views[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._views)

    def __len__(self) -> int:
        return len(self._views)


def write_tensors(
    folder: str | os.PathLike[str],
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    values: Callable[[str], np.ndarray],
    *,
    shard_bytes: int = _SHARD,
) -> None:
    """Writes tensors as transformers would: one file, or several and their index.

    Each file appears whole or not at all. What says which files are the checkpoint goes first
    and comes last: a folder that was used before never holds a mixture that can be read.

    Args:
      folder: made where it does not exist.
      tensors: shape and dtype of each by name, in the order in which they are written.
      values: gives a tensor by its name; it is asked for each once, and none is kept.
      shard_bytes: most bytes of a file, unless one tensor has more.

    Raises:
      ValueError: no tensors, or a dtype that safetensors lacks.
    """
    folder = Path(folder)
    if not tensors:
        raise ValueError(f"{folder}: no tensors to write")
    for name, (_, dtype) in tensors.items():
        if np.dtype(dtype) not in _CODES:
            raise ValueError(f"{folder}: tensor {name!r} is {dtype}, which safetensors lacks")
    sizes = {
        n: math.prod(shape) * np.dtype(dtype).itemsize for n, (shape, dtype) in tensors.items()
    }
    shards = _cut(sizes, shard_bytes)
    count, where = len(shards), {}
    for file in (INDEX, *([ONE] if count > 1 else [])):
        (folder / file).unlink(missing_ok=True)
    for number, names in enumerate(shards, 1):
        file = ONE if count == 1 else f"model-{number:05d}-of-{count:05d}.safetensors"
        _write(folder / file, {name: tensors[name] for name in names}, values)
        where |= dict.fromkeys(names, file)
    if count > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": where}
        write_text(folder / INDEX, json.dumps(index, indent=2) + "\n")


def _files(path: Path) -> dict[Path, list[str] | None]:
    """The files, and which of their tensors are meant; None = all."""
    if path.is_file():
        return {path: None}
    if not path.is_dir():
        raise FileNotFoundError(f"no folder {path} (cwd {Path.cwd()}) with {ONE} or {INDEX}")
    if not (path / INDEX).is_file():
        if (path / ONE).is_file():
            return {path / ONE: None}
        raise FileNotFoundError(f"{path} holds neither {ONE} nor {INDEX}")
    return dict(read_index(path / INDEX))


def _views(file: Path) -> dict[str, np.ndarray]:
    """Views of all tensors of one file."""
    content = content_of(file)
    if content is not Content.SAFETENSORS:
        raise CheckpointError(f"{file} is {content.value}")
    data = np.memmap(file, np.uint8, "r")
    length = int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
        return {
            name: _view(data, 8 + length, entry)
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except CheckpointError as error:
        raise CheckpointError(f"{file} {error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{file} is damaged ({error}); download it again") from error


def _view(data: np.ndarray, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    if entry["dtype"] not in _DTYPES:
        raise CheckpointError(
            f"holds numbers of {entry['dtype']}, which are not read; cast them to bfloat16"
        )
    dtype, shape = _DTYPES[entry["dtype"]], tuple(entry["shape"])
    first, last = (start + offset for offset in entry["data_offsets"])
    if last - first != math.prod(shape) * dtype.itemsize or last > len(data):
        raise CheckpointError("is damaged (it is shorter than it says); download it again")
    return data[first:last].view(dtype).reshape(shape)


def _cut(sizes: Mapping[str, int], most: int) -> list[list[str]]:
    """Names in their order, in as few runs as `most` bytes allow."""
    shards: list[list[str]] = [[]]
    used = 0
    for name, size in sizes.items():
        if shards[-1] and used + size > most:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += size
    return shards


def _write(
    file: Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    values: Callable[[str], np.ndarray],
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + math.prod(shape) * np.dtype(dtype).itemsize
        code = _CODES[np.dtype(dtype)]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    with replacing(file) as partial, partial.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name, (shape, dtype) in tensors.items():
            array = np.ascontiguousarray(values(name), np.dtype(dtype))
            if array.shape != tuple(shape):
                raise ValueError(f"{file}: {name!r} is {array.shape}, announced as {shape}")
            out.write(array.reshape(-1).view(np.uint8).data)
