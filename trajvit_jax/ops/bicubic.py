"""Bicubic resizing as two small matrix products."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

# The free parameter of Keys' cubic convolution: PyTorch's choice, where Pillow and JAX take -0.5.
_KEYS = -0.75


def _kernel(distance: np.ndarray) -> np.ndarray:
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
    weights = _kernel(centre[:, None] - taps)
    cells = np.clip(taps, 0, source - 1).astype(np.int64)
    matrix = np.zeros((target, source))
    np.add.at(matrix, (np.arange(target)[:, None], cells), weights)
    return matrix.astype(np.float32)


def resize_bicubic(
    x: Float[Array, "*b h w c"], height: int, width: int
) -> Float[Array, "*b height width c"]:
    """Resamples the two grid axes; see `bicubic_matrix`."""
    if x.shape[-3] != height:
        rows = jnp.asarray(bicubic_matrix(x.shape[-3], height), x.dtype)
        x = jnp.einsum("yh,...hwc->...ywc", rows, x)
    if x.shape[-2] != width:
        columns = jnp.asarray(bicubic_matrix(x.shape[-2], width), x.dtype)
        x = jnp.einsum("xw,...ywc->...yxc", columns, x)
    return x
