"""Bilinear resizing as two small matrix products."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int64


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
    return matrix


def resize_bilinear(
    x: Float[Array, "*b h w c"], height: int, width: int
) -> Float[Array, "*b height width c"]:
    """Resamples the two grid axes; see `bilinear_taps`."""
    if x.shape[-3] != height:
        rows = jnp.asarray(bilinear_matrix(x.shape[-3], height), x.dtype)
        x = jnp.einsum("yh,...hwc->...ywc", rows, x)
    if x.shape[-2] != width:
        columns = jnp.asarray(bilinear_matrix(x.shape[-2], width), x.dtype)
        x = jnp.einsum("xw,...ywc->...yxc", columns, x)
    return x


def resize_linear(x: Float[Array, "t d"], length: int) -> Float[Array, "length d"]:
    """Resamples the first axis; see `bilinear_taps`."""
    return jnp.asarray(bilinear_matrix(x.shape[0], length), x.dtype) @ x
