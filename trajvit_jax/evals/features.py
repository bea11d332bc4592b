"""Frozen tokens of videos, computed once: what probes are trained on."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.evals import token_store
from trajvit_jax.evals.embedding import Embedder, tell_bad
from trajvit_jax.evals.token_store import Features, Store
from trajvit_jax.models.tokens import Rows, unpack
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import everywhere

_EPS = 1e-6


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
      ValueError: more than a tenth of the records cannot be used, they need more room than there
        is, or the folder holds features of something else.
      OSError: storage that cannot be read or written.
    """
    about = dict(about or {}) | {"dtype": dtype}
    found = token_store.read(folder, about) if folder else None
    if found is None:
        found = _computed(embedder, source, keep, folder, about)
    features, notes = found
    bad = tuple(BadRecord(**one) for one in notes["bad"])
    return Frozen(features, tuple(map(_as_tuple, notes["kept"])), bad)


def _computed(
    embedder: Embedder,
    source: Sequence[Record],
    keep: Callable[[Record], Any],
    folder: str | os.PathLike[str],
    about: Mapping[str, Any],
) -> tuple[Features, dict[str, list[Any]]]:
    settings = embedder.model.settings
    width, dtype = settings.encoder.width, about["dtype"]
    kept: list[Any] = []
    bad: list[BadRecord] = []
    with Store(width, len(source), folder=folder, dtype=dtype).open() as store:
        done = 0
        for videos in embedder.batches(source, keep, name="frozen tokens"):
            arrays = embedder.put((videos.video, videos.labels, videos.rows))
            shared = videos.rows is not None
            values, used = map(np.asarray, encode_tokens(embedder.model, *arrays, shared=shared))
            good = [number for number, problem in enumerate(videos.bad) if problem is None]
            done += videos.count
            store.add([values[number][used[number]] for number in good], done=done)
            kept += [videos.kept[number] for number in good]
            bad += [problem for problem in videos.bad if problem is not None]
        tell_bad(bad, len(source))
    notes = {"kept": kept, "bad": [dataclasses.asdict(one) for one in bad]}
    return store.kept(about, notes), notes


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
