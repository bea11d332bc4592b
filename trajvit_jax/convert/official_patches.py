"""The released ViT3D and ViViT, run by our layers: for parity with their outputs.

As RAIVNLab/trajvit has them. Its ViViT is the factorised encoder of lucidrains' vit-pytorch, half
of the layers for space and half for time, with one position table for all tubelets.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float32, Int

from trajvit_jax.convert import released, spellings
from trajvit_jax.convert.pieces import Piece, fill, paths, read
from trajvit_jax.convert.sizes import vit3d_settings, vivit_settings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Tokens
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_text import TOKENIZERS

_CHANNELS = 3


class ReleasedPatches(nnx.Module):
    """The video side of a model of patches."""

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        self.tokenizer = TOKENIZERS[settings.name](settings, rngs=rngs)
        self.encoder = Encoder(settings.encoder, rngs=rngs)

    def tokens(self, video: jax.Array) -> Tokens:
        """Tokens of normalized pixels [b, t, h, w, 3]."""
        unused = jnp.zeros((*video.shape[:2], 1, 1), jnp.int32)
        return self.tokenizer(video, unused, train=False)[0]

    def encode(self, video: jax.Array) -> jax.Array:
        """States of CLS and all tokens."""
        return self.tokenizer.encode(self.encoder, self.tokens(video), len(video))[0]

    def encode_some(self, video: jax.Array, keep: jax.Array) -> jax.Array:
        """States of CLS and of the tokens `keep` [b, k], which alone are read."""
        tokens = self.tokens(video)
        slots = jnp.pad(keep + 1, ((0, 0), (1, 0)))
        some = jax.tree.map(
            lambda x: x[jnp.arange(len(x))[:, None], slots],
            tokens,
        )
        return self.encoder(some)


_encode = nnx.jit(ReleasedPatches.encode)
_encode_some = nnx.jit(ReleasedPatches.encode_some)


def encode_vit3d(
    state_dict: Mapping[str, np.ndarray],
    video: Float32[np.ndarray, "b _ _ h w"],
    *,
    heads: int,
    keep: Int[np.ndarray, "b k"] | None = None,
) -> Float32[np.ndarray, "b s d"]:
    """States of CLS and all tubelets, as the released `ViT3D` computes them.

    Args:
      state_dict: arrays under the released names; with `norm.` the final norm runs.
      video: normalized pixels, [b, 3, t, h, w] or [b, t, 3, h, w]. Other frame counts than the
        position table's stretch it, or take its first rows.
      heads: attention heads.
      keep: numbers of the tubelets that are read, from 0; None = all.

    Raises:
      ValueError: a video that the arrays do not fit, or arrays that are not a ViT3D's.
    """
    clip = _channels_last(video)
    found = spellings.vit3d(state_dict)
    settings = vit3d_settings(found, heads=heads, image_size=clip.shape[2])
    model = _load(settings, found, tuple(released.vit3d(settings)))
    _check(clip, settings)
    if keep is not None:
        keep = np.asarray(keep)
        if keep.shape[:-1] != clip.shape[:1] or not np.issubdtype(keep.dtype, np.integer):
            raise ValueError(
                f"keep must be whole numbers [{len(clip)}, k], got {keep.dtype} {list(keep.shape)}"
            )
        count = clip.shape[1] // settings.vit3d.tubelet * _cells(settings)
        if keep.min(initial=0) < 0 or keep.max(initial=0) >= count:
            raise ValueError(f"keep must be within 0..{count - 1}, got {keep.min()}..{keep.max()}")
    with jax.default_matmul_precision("highest"):
        if keep is None:
            return np.asarray(_encode(model, jnp.asarray(clip)))
        return np.asarray(_encode_some(model, jnp.asarray(clip), jnp.asarray(keep)))


def encode_vivit(
    state_dict: Mapping[str, np.ndarray],
    video: Float32[np.ndarray, "b _ _ h w"],
    *,
    heads: int,
) -> Float32[np.ndarray, "b s d"]:
    """States of CLS and all time steps, as the released `Vivit` computes them.

    Of its variants the factorised encoder with `pool='cls'`, which its models use.

    Args:
      state_dict: arrays under the released names.
      video: as in `encode_vit3d`.
      heads: attention heads.

    Raises:
      ValueError: a video that the arrays do not fit, or arrays that are not a ViViT's.
    """
    clip = _channels_last(video)
    settings = vivit_settings(state_dict, heads=heads, image_size=clip.shape[2])
    model = _load(settings, state_dict, tuple(released.vivit(settings)))
    _check(clip, settings)
    with jax.default_matmul_precision("highest"):
        return np.asarray(_encode(model, jnp.asarray(clip)))


def _channels_last(video: np.ndarray) -> np.ndarray:
    """[b, t, h, w, 3] of either of the two layouts that the released programs take."""
    video = np.asarray(video)
    if video.ndim != 5 or _CHANNELS not in video.shape[1:3]:
        raise ValueError(
            f"expected video [b, 3, t, h, w] or [b, t, 3, h, w], got {list(video.shape)}"
        )
    shape = f"video {list(video.shape)}"
    if 0 in video.shape:
        raise ValueError(f"nothing to read: {shape}")
    if not np.issubdtype(video.dtype, np.floating):
        raise ValueError(f"pixels must be normalized floats, got {video.dtype}: {shape}")
    if not np.isfinite(video).all():
        raise ValueError(f"pixels are not finite: {shape}")
    return np.moveaxis(video, 1 if video.shape[1] == _CHANNELS else 2, -1)


def _cells(settings: ModelSettings) -> int:
    return (settings.image_size // settings.vit3d.patch) ** 2


def _check(clip: np.ndarray, settings: ModelSettings) -> None:
    own, side = settings.vit3d, settings.image_size
    if clip.shape[2:4] != (side, side) or clip.shape[1] % own.tubelet or side % own.patch:
        raise ValueError(
            f"the arrays are of {side}x{side} pixels in tubelets of {own.tubelet} frames and "
            f"{own.patch} px; the video is {list(clip.shape[1:4])}"
        )


def _load(
    settings: ModelSettings, found: Mapping[str, np.ndarray], pieces: tuple[Piece, ...]
) -> ReleasedPatches:
    shapes = _abstract(settings)
    arrays, report = read(pieces, found, paths(shapes))
    report.raise_if_incomplete()
    return fill(shapes, {**dict(_absent(shapes, arrays)), **arrays})


def _absent(shapes: ReleasedPatches, arrays: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Zeros for the biases that the released ViViT's attention does not have."""
    for name, like in paths(shapes).items():
        if name not in arrays and name.endswith("query_key_value.bias"):
            yield name, np.zeros(like.shape, like.dtype)


@functools.lru_cache(maxsize=32)
def _abstract(settings: ModelSettings) -> ReleasedPatches:
    return nnx.eval_shape(lambda: ReleasedPatches(settings, rngs=nnx.Rngs(0)))
