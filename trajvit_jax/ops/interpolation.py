"""Resizing as two small matrix products, one for each axis of a grid."""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int64

from trajvit_jax.ops.impl import EXACT

# The free parameter of Keys' cubic convolution: PyTorch's choice, where Pillow and JAX take -0.5.
_KEYS = -0.75


def bilinear_taps(
    source: int, target: int
) -> tuple[
    tuple[Int64[np.ndarray, " target"], Float32[np.ndarray, " target"]],
    tuple[Int64[np.ndarray, " target"], Float32[np.ndarray, " target"]],
]:
    """The lower and the upper source cell of each target cell, with their weights.

    Half-pixel centres and clamped borders: PyTorch's `align_corners=False`, without
    antialiasing.
    """
    centre = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
    low = np.floor(centre).astype(np.int64)
    high = np.minimum(low + 1, source - 1)
    weight = centre - low
    return (low, (1 - weight).astype(np.float32)), (high, weight.astype(np.float32))


@functools.lru_cache(maxsize=64)
def bilinear_matrix(source: int, target: int) -> Float32[np.ndarray, "target source"]:
    """Rows of weights that resample `source` cells to `target` cells; see `bilinear_taps`."""
    matrix = np.zeros((target, source), np.float32)
    for cells, weights in bilinear_taps(source, target):
        np.add.at(matrix, (np.arange(target), cells), weights)
    matrix.setflags(write=False)  # the cache hands out this one
    return matrix


def _cubic(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution weights at distances of at most two cells (Keys, 1981)."""
    d = np.abs(distance)
    near = (_KEYS + 2) * d**3 - (_KEYS + 3) * d**2 + 1
    far = _KEYS * (d**3 - 5 * d**2 + 8 * d - 4)
    return np.where(d <= 1, near, far)


@functools.lru_cache(maxsize=64)
def bicubic_matrix(source: int, target: int) -> Float32[np.ndarray, "target source"]:
    """Rows of weights that resample `source` cells to `target` cells.

    Half-pixel centres, border cells repeated outwards: `torch.nn.functional.interpolate` with
    mode='bicubic' and align_corners=False, without antialiasing.
    """
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    taps = np.floor(centre)[:, None] + np.arange(-1, 3)
    weights = _cubic(centre[:, None] - taps)
    cells = np.clip(taps, 0, source - 1).astype(np.int64)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], cells), weights)
    matrix = matrix.astype(np.float32)
    matrix.setflags(write=False)
    return matrix


def resize_bilinear(
    x: Float[Array, "*b h w c"], height: int, width: int
) -> Float[Array, "*b height width c"]:
    """Resamples the two grid axes; see `bilinear_taps`."""
    return _resize(x, height, width, bilinear_matrix)


def resize_bicubic(
    x: Float[Array, "*b h w c"], height: int, width: int
) -> Float[Array, "*b height width c"]:
    """Resamples the two grid axes; see `bicubic_matrix`."""
    return _resize(x, height, width, bicubic_matrix)


def _resize(
    x: jax.Array, height: int, width: int, matrix: Callable[[int, int], np.ndarray]
) -> jax.Array:
    if x.shape[-3] != height:
        rows = jnp.asarray(matrix(x.shape[-3], height), x.dtype)
        x = jnp.einsum("yh,...hwc->...ywc", rows, x, precision=EXACT)
    if x.shape[-2] != width:
        columns = jnp.asarray(matrix(x.shape[-2], width), x.dtype)
        x = jnp.einsum("xw,...ywc->...yxc", columns, x, precision=EXACT)
    return x


def resize_linear(x: Float[Array, "t d"], length: int) -> Float[Array, "length d"]:
    """Resamples the first axis; see `bilinear_taps`."""
    return jnp.matmul(jnp.asarray(bilinear_matrix(x.shape[0], length), x.dtype), x, precision=EXACT)
