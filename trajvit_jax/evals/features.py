"""Frozen tokens of videos, computed once: what probes are trained on."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Float, Int, Int64, UInt8

from tokenization.files import replacing, write_text
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.evals.embedding import Embedder, tell_bad
from trajvit_jax.models.tokens import Rows, unpack
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere

_VALUES, _STARTS, _ABOUT = "values.bin", "starts.npy", "about.json"
_EPS = 1e-6
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
    def longest(self) -> int:
        """Most tokens of a sample."""
        return int(np.diff(self.starts).max(initial=0))

    @property
    def mean(self) -> float:
        """Tokens of a sample, on average."""
        return float(np.diff(self.starts).mean())

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

    @classmethod
    def of(cls, samples: Sequence[Float[np.ndarray, "_ d"]]) -> Features:
        """Of samples in memory."""
        lengths = [len(sample) for sample in samples]
        return cls(np.concatenate(samples), np.concatenate([[0], np.cumsum(lengths)]))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialized memory that JAX takes for a CPU's array as it is; other memory it copies."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _CACHE_LINE, np.uint8)
    start = -memory.ctypes.data % _CACHE_LINE
    return memory[start : start + size].view(dtype).reshape(shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Frozen:
    """Features of records.

    Attributes:
      features: a sample a record, bad ones left out.
      kept: what was wanted of each record.
      bad: records that could not be used.
    """

    features: Features
    kept: tuple[Any, ...]
    bad: tuple[BadRecord, ...] = ()


@nnx.jit(static_argnames="shared")
def encode_tokens(
    model: VideoTextModel,
    video: UInt8[Array, "b t h w 3"],
    labels: Int[Array, "b t y x"],
    rows: Rows | None,
    *,
    shared: bool,
) -> tuple[Float[Array, "b s d"], Bool[Array, "b s"]]:
    """The encoder's states, layer-normalized, one video a row; and which slots mean something.

    Args:
      model: frozen.
      video: pixels.
      labels: trajectories.
      rows: that videos share.
      shared: whether videos share rows.
    """
    states, tokens, _ = model.encode_video(video, labels, rows)
    tokens = tokens.replace(values=states)
    if shared:
        tokens, _ = unpack(tokens, video.shape[0])
    return everywhere((normalized(tokens.values), tokens.video > 0))


def normalized(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """LayerNorm without parameters, float32 (paper, supplementary section 6)."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + _EPS)


def frozen_tokens(
    embedder: Embedder,
    source: Sequence[Record],
    keep: Callable[[Record], Any],
    *,
    folder: str | os.PathLike[str] = "",
    about: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> Frozen:
    """All tokens that leave the encoder, CLS among them, of all records that can be used.

    Args:
      embedder: with the model.
      source: the records.
      keep: what is wanted of a record besides its frames, as JSON.
      folder: keeps them: what lies there and is `about` the same is read, not computed again;
        '' = they stay in memory.
      about: what they depend on, as JSON.
      dtype: in which they are kept: float32 or float16.

    Raises:
      ValueError: more than a tenth of the records cannot be used, or the folder holds features
        of something else.
      OSError: storage that cannot be read or written.
    """
    about = dict(about or {}) | {"dtype": dtype}
    if folder and (Path(folder) / _ABOUT).is_file():
        return _read(Path(folder), about)
    kept: list[Any] = []
    bad: list[BadRecord] = []
    lengths: list[int] = []
    parts: list[np.ndarray] = []
    with contextlib.ExitStack() as stack:
        file = _values_file(stack, folder)
        for tokens, note, problem in _by_video(embedder, source, keep):
            if problem is not None:
                bad.append(problem)
                continue
            narrow = np.ascontiguousarray(tokens, np.dtype(dtype))
            kept.append(note)
            lengths.append(len(narrow))
            if file is None:
                parts.append(narrow)
            else:
                file.write(narrow.data)
        tell_bad(bad, len(source))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    if not folder:
        return Frozen(Features(np.concatenate(parts), starts), tuple(kept), tuple(bad))
    if jax.process_index() == 0:
        _note(Path(folder), starts, embedder.model.settings.encoder.width, kept, bad, about)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("features")
    return _read(Path(folder), about)


def _by_video(
    embedder: Embedder, source: Sequence[Record], keep: Callable[[Record], Any]
) -> Iterator[tuple[np.ndarray, Any, BadRecord | None]]:
    settings = embedder.model.settings
    for videos in embedder.batches(source, keep, name="frozen tokens"):
        shared = videos.rows is not None or (settings.name == "rlt" and settings.rlt.group > 1)
        arrays = embedder.put((videos.video, videos.labels, videos.rows))
        values, used = map(np.asarray, encode_tokens(embedder.model, *arrays, shared=shared))
        for number, (note, problem) in enumerate(zip(videos.kept, videos.bad, strict=True)):
            yield values[number][used[number]], note, problem


def _values_file(stack: contextlib.ExitStack, folder: str | os.PathLike[str]) -> IO[bytes] | None:
    if not folder:
        return None
    if jax.process_index() > 0:  # process 0 writes for all
        return stack.enter_context(open(os.devnull, "wb"))  # noqa: PTH123
    partial = stack.enter_context(replacing(Path(folder) / _VALUES))
    return stack.enter_context(partial.open("wb"))


def _note(
    folder: Path,
    starts: np.ndarray,
    width: int,
    kept: Sequence[Any],
    bad: Sequence[BadRecord],
    about: Mapping[str, Any],
) -> None:
    with replacing(folder / _STARTS) as partial, partial.open("wb") as file:
        np.save(file, starts, allow_pickle=False)
    noted = {
        "about": about,
        "width": width,
        "kept": kept,
        "bad": [dataclasses.asdict(one) for one in bad],
    }
    write_text(folder / _ABOUT, json.dumps(noted) + "\n")  # last: now they are whole


def _read(folder: Path, about: Mapping[str, Any]) -> Frozen:
    noted = json.loads((folder / _ABOUT).read_text("utf-8"))
    wanted = json.loads(json.dumps(about))
    if noted["about"] != wanted:
        differing = [
            f"{name}: {noted['about'].get(name)!r}, not {value!r}"
            for name, value in wanted.items()
            if noted["about"].get(name) != value
        ]
        raise ValueError(
            f"{folder} holds features of something else ({'; '.join(differing)}); name another "
            "folder, or remove it"
        )
    starts = np.load(folder / _STARTS, allow_pickle=False)
    shape = (int(starts[-1]), noted["width"])
    values = np.memmap(folder / _VALUES, dtype=np.dtype(about["dtype"]), mode="r", shape=shape)
    bad = tuple(BadRecord(**one) for one in noted["bad"])
    return Frozen(Features(values, starts), tuple(map(_as_tuple, noted["kept"])), bad)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
