"""Bilinear resizing as two small matrix products."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32


@functools.lru_cache(maxsize=64)
def bilinear_matrix(source: int, target: int) -> Float32[np.ndarray, "target source"]:
    """Rows of weights that resample `source` cells to `target` cells.

    Half-pixel centres and clamped borders: PyTorch's `align_corners=False`, without
    antialiasing.
    """
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    weight = centre - low
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target), low), 1 - weight)
    np.add.at(matrix, (np.arange(target), high), weight)
    return matrix.astype(np.float32)


def resize_bilinear(
    x: Float[Array, "*b h w c"], height: int, width: int
) -> Float[Array, "*b height width c"]:
    """Resamples the two grid axes; see `bilinear_matrix`."""
    if x.shape[-3] != height:
        rows = jnp.asarray(bilinear_matrix(x.shape[-3], height), x.dtype)
        x = jnp.einsum("yh,...hwc->...ywc", rows, x)
    if x.shape[-2] != width:
        columns = jnp.asarray(bilinear_matrix(x.shape[-2], width), x.dtype)
        x = jnp.einsum("xw,...ywc->...yxc", columns, x)
    return x
