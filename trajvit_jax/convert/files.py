"""Reads and writes files of named arrays: safetensors, NumPy archives, PyTorch checkpoints.

No code in a file is ever run: `.npz` is read without pickles, PyTorch files by its weights-only
loader, and each only if its content is what its name says.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes  # safetensors knows bfloat16 only once this has been imported
import numpy as np
import safetensors.numpy
from tqdm import tqdm

from tokenization.files import replacing
from trajvit_jax.config import nearest
from trajvit_jax.convert import nesting, torch_files
from trajvit_jax.convert.contents import CheckpointError, Content, content_of
from trajvit_jax.convert.shard_index import SUFFIX as INDEX_SUFFIX
from trajvit_jax.convert.shard_index import read_index

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_RAW_BFLOAT16 = np.dtype("V2")  # how NumPy writes what it does not know
_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_WRITABLE = ("float32", "bfloat16", "float16", "float64", "bool", *_INTEGERS)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The arrays of a file, and how they were found.

    Attributes:
      arrays: by name.
      path: the file.
      place: keys that led to them, joined by "/"; "" if they were not nested.
      prefix: what was removed from the front of every name.
      elsewhere: place -> number of tensors, of those that were not read.
      skipped: places of the values that are no tensors (epochs, options).
    """

    arrays: dict[str, np.ndarray]
    path: Path
    place: str = ""
    prefix: str = ""
    elsewhere: Mapping[str, int] = dataclasses.field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The same for a person to read."""
        dtypes = Counter(array.dtype.name for array in self.arrays.values())
        lines = [
            f"{self.path}: {len(self.arrays)} arrays of {self.numbers:,} numbers "
            f"({', '.join(f'{count} {name}' for name, count in dtypes.most_common())})"
        ]
        if self.place:
            lines.append(f"  found at {self.place!r}")
        if self.prefix:
            lines.append(f"  prefix {self.prefix!r} removed from every name")
        lines += [
            f"  not read: {count} tensors {f'at {at!r}' if at else 'at the outermost level'}"
            for at, count in self.elsewhere.items()
        ]
        if self.skipped:
            more = ", ..." if len(self.skipped) > 5 else ""
            names = ", ".join(self.skipped[:5])
            lines.append(f"  not tensors, skipped: {len(self.skipped)} values ({names}{more})")
        return lines

    @property
    def numbers(self) -> int:
        """How many numbers all arrays have together."""
        return sum(array.size for array in self.arrays.values())


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name; `read_checkpoint` also tells how they were found."""
    return read_checkpoint(path).arrays


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names of the arrays in a `.safetensors` file, whose numbers are not read.

    Raises:
      FileNotFoundError, CheckpointError: as `read_checkpoint`.
    """
    path = Path(path)
    _check_exists(path)
    try:
        with safetensors.safe_open(path, "numpy") as file:
            return tuple(file.keys())
    except safetensors.SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); download it again") from error


def read_checkpoint(path: str | os.PathLike[str], place: str | None = None) -> Checkpoint:
    """Reads `.safetensors`, `.npz`, `.pt`, `.pth`, `.bin`, or the `*.index.json` of several files.

    Prefixes that DistributedDataParallel and torch.compile put before every name are removed.
    PyTorch files need PyTorch, the others do not.

    Args:
      path: the file. bfloat16 comes as ml_dtypes.bfloat16.
      place: where in a nested checkpoint to read, keys joined by "/": "model_ema". By default
        where the model is, see `nesting.find`.

    Raises:
      FileNotFoundError: no such file (the message names the nearest), or a shard is missing.
      CheckpointError: a ValueError; a file of another format, damaged, empty, without tensors, or
        one that only running its code could restore.
      ImportError: a PyTorch file without PyTorch, or with one whose loader is not safe.
    """
    path = Path(path)
    _check_exists(path)
    tree = _read_index(path) if path.name.endswith(INDEX_SUFFIX) else _read_one(path)
    with _naming(path):
        found = nesting.find(tree, place)
        tensors, prefix = nesting.unwrap(found.tensors)
        arrays = {name: _array(tensor, name) for name, tensor in tensors.items()}
    return Checkpoint(arrays, path, found.place, prefix, found.elsewhere, found.skipped)


def write_state_dict(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray]) -> None:
    """Writes `.safetensors` (loads in PyTorch and transformers too) or `.npz`; whole or not at all.

    Dtypes and shapes come back as they were. NumPy writes bfloat16 as two raw bytes a number
    (dtype V2), which `read_state_dict` takes for bfloat16, as google-research/big_vision does.

    Raises:
      ValueError: another suffix, no arrays, a dtype that one of the formats lacks, or a name that
        is not printable. Nothing is written.
    """
    path = Path(path)
    check_suffix(path)
    if not arrays:
        raise ValueError(f"{path}: no arrays to write")
    for name, array in arrays.items():
        if name == "__metadata__" or not name.isprintable():
            raise ValueError(f"{path}: an array cannot be called {name!r}; rename it")
        if array.dtype.name not in _WRITABLE:
            raise ValueError(
                f"{path}: array {name!r} is {array.dtype.name}; cast it to one of "
                f"{', '.join(_WRITABLE)}"
            )
    # Native and in C order: safetensors writes the memory of an array as it lies, so that a
    # transposed one would come back scrambled.
    plain = {n: a.astype(a.dtype.newbyteorder("="), "C", copy=False) for n, a in arrays.items()}
    with replacing(path) as partial:
        _WRITERS[path.suffix](partial, plain)


def check_suffix(path: str | os.PathLike[str]) -> None:
    """Raises ValueError if `write_state_dict` knows no such suffix."""
    suffix = Path(path).suffix
    if suffix not in _WRITERS:
        raise ValueError(f"{path}: can write {' and '.join(_WRITERS)}, not {suffix!r}")


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Puts the file before the messages of what knows none."""
    try:
        yield
    except CheckpointError as error:
        raise CheckpointError(f"{path} {error}") from error


def _check_exists(path: Path) -> None:
    if path.is_file():
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} (cwd {Path.cwd()}) to read {path.name}")
    folder = path if path.is_dir() else path.parent
    known = (*_READERS, INDEX_SUFFIX)
    names = [item.name for item in folder.iterdir() if item.name.endswith(known)]
    hint = nearest(path.name, names) if names else "there is no checkpoint in that folder"
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; name a file in it; {hint}")
    raise FileNotFoundError(f"no file {path} (cwd {Path.cwd()}); {hint}")


def _read_one(path: Path) -> Any:
    """What a single file holds: arrays by name, or for PyTorch perhaps nested tensors."""
    content = content_of(path)
    if path.suffix not in _READERS:
        known = ", ".join((*_READERS, INDEX_SUFFIX))
        raise CheckpointError(f"{path} has none of the suffixes {known}; it is {content.value}")
    read, contents = _READERS[path.suffix]
    if content not in contents:
        raise CheckpointError(f"{path} is {content.value}")
    try:
        return read(path)
    except (CheckpointError, ImportError, MemoryError):
        raise
    except Exception as error:  # at damaged files the parsers raise whatever they ran into
        raise CheckpointError(f"{path} is damaged ({error}); download it again") from error


def _read_index(path: Path) -> dict[str, Any]:
    """All arrays of a checkpoint in several files, which lie beside their index."""
    arrays = {}
    for shard, names in tqdm(
        read_index(path).items(), f"reading {path.name}", unit="file", delay=5
    ):
        tree = _read_one(shard)
        with _naming(shard):
            tensors = nesting.find(tree).tensors
        for name in names:
            if name not in tensors:
                raise CheckpointError(
                    f"{path} says that {name!r} is in {shard.name}, which lacks it; download both "
                    "again"
                )
            arrays[name] = tensors[name]
    return arrays


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            with archive.open(member) as stream:
                try:
                    array = np.lib.format.read_array(stream, allow_pickle=False)
                except ValueError as error:
                    if "allow_pickle" not in str(error):
                        raise
                    raise CheckpointError(
                        f"{path} holds Python objects (array {name!r}), which are not loaded, as "
                        "they could run code; where it was made, save numbers alone: "
                        "numpy.asarray(array, 'float32')"
                    ) from error
            if array.dtype == _RAW_BFLOAT16:
                array = array.view(_BFLOAT16)
            elif array.dtype.kind == "V":
                raise CheckpointError(
                    f"{path} holds raw bytes (array {name!r}, {array.dtype}), of which NumPy did "
                    "not write what they are; where it was made, cast them to float32"
                )
            arrays[name] = array
    return arrays


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    try:
        return safetensors.numpy.load_file(path)
    except AttributeError as error:  # numpy.float8_e4m3fn
        raise CheckpointError(
            f"{path} holds numbers that NumPy lacks ({error}); where it was made, cast them to "
            "bfloat16"
        ) from error


def _write_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    # Not np.savez, whose arguments are named as arrays may be ("file").
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            raw = array.view(_RAW_BFLOAT16) if array.dtype == _BFLOAT16 else array
            # Without a time: the same arrays give the same bytes.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, raw, allow_pickle=False)


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    path.touch()
    mode = path.stat().st_mode  # safetensors lets nobody but the owner read its files
    # transformers refuses files that do not name a framework.
    safetensors.numpy.save_file(dict(arrays), path, metadata={"format": "pt"})
    path.chmod(mode)


def _array(tensor: Any, name: str) -> np.ndarray:
    if not isinstance(tensor, np.ndarray):
        return torch_files.to_numpy(tensor, name)
    return tensor.astype(tensor.dtype.newbyteorder("="), copy=False)


_PYTORCH = (torch_files.load, (Content.TORCH,))
_READERS: dict[str, tuple[Callable[[Path], Any], tuple[Content, ...]]] = {
    ".safetensors": (_read_safetensors, (Content.SAFETENSORS,)),
    ".npz": (_read_npz, (Content.NPZ,)),
    ".pt": _PYTORCH,
    ".pth": _PYTORCH,
    ".bin": _PYTORCH,
}
_WRITERS: dict[str, Callable[[Path, Mapping[str, np.ndarray]], None]] = {
    ".safetensors": _write_safetensors,
    ".npz": _write_npz,
}
