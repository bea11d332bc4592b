"""Gaussian blur with a few taps, as torchvision's GaussianBlur defines it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def gaussian_taps(sigma: Float[Array, ""], taps: int) -> Float[Array, " {taps}"]:
    """The normal density at whole pixels around 0, divided by its sum there.

    Args:
      sigma: standard deviation in pixels, above 0.
      taps: how many, an odd number.
    """
    offsets = jnp.arange(taps) - taps // 2
    density = jnp.exp(-0.5 * jnp.square(offsets / sigma))
    return density / density.sum()


def blur(x: Float[Array, "*n h w"], taps: Float[Array, " k"]) -> Float[Array, "*n h w"]:
    """Correlates both axes with the taps; borders are mirrored without repeating the edge.

    Args:
      x: planes larger than half the taps.
      taps: an odd number of weights.
    """
    return _along(_along(x, taps, axis=-2), taps, axis=-1)


def _along(x: jax.Array, taps: jax.Array, *, axis: int) -> jax.Array:
    axis, length, reach = x.ndim + axis, x.shape[axis], taps.size // 2
    pads = [(reach, reach) if i == axis else (0, 0) for i in range(x.ndim)]
    padded = jnp.pad(x, pads, mode="reflect")
    slices = [jax.lax.slice_in_dim(padded, k, k + length, axis=axis) for k in range(taps.size)]
    return sum((tap * part for tap, part in zip(taps, slices, strict=True)), jnp.zeros_like(x))
