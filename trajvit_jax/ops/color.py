"""Colour changes as torchvision's ColorJitter defines them, for frames with channels first.

Channels first, because three planes are read as long rows, where a last axis of three is not.
Pixels are 0..255; each change ends within that range.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

_HIGHEST = 255.0

# Positions in the factors of `jitter`.
BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def grayscale(x: Float[Array, "3 *n h w"]) -> Float[Array, "*n h w"]:
    """Luma by ITU-R BT.601, with torchvision's three decimals and a bit."""
    red, green, blue = x
    return 0.2989 * red + 0.587 * green + 0.114 * blue


def adjust_brightness(
    x: Float[Array, "3 *n h w"], factor: Float[Array, ""]
) -> Float[Array, "3 *n h w"]:
    """Blends with black: 1 changes nothing, 0 leaves black."""
    return _blend(x, 0.0, factor)


def adjust_contrast(
    x: Float[Array, "3 *n h w"], factor: Float[Array, ""]
) -> Float[Array, "3 *n h w"]:
    """Blends with the mean gray of each frame: 1 changes nothing, 0 leaves that gray."""
    return _blend(x, grayscale(x).mean(axis=(-2, -1), keepdims=True), factor)


def adjust_saturation(
    x: Float[Array, "3 *n h w"], factor: Float[Array, ""]
) -> Float[Array, "3 *n h w"]:
    """Blends with each pixel's own gray: 1 changes nothing, 0 leaves grayscale."""
    return _blend(x, grayscale(x), factor)


def _blend(x: jax.Array, other: jax.Array | float, factor: jax.Array) -> jax.Array:
    return jnp.clip(factor * x + (1.0 - factor) * other, 0.0, _HIGHEST)


def shift_hue(x: Float[Array, "3 *n h w"], turns: Float[Array, ""]) -> Float[Array, "3 *n h w"]:
    """Turns the hue by a fraction of the colour circle; HSV's saturation and value stay.

    The largest and the smallest channel stay what they are, so HSV itself is never built.
    """
    red, green, blue = x
    # Pairwise: a reduction over three planes would be a loop of its own.
    high = jnp.maximum(jnp.maximum(red, green), blue)
    low = jnp.minimum(jnp.minimum(red, green), blue)
    chroma = high - low
    is_red, is_green = high == red, high == green
    difference = jnp.where(is_red, green - blue, jnp.where(is_green, blue - red, red - green))
    sextant = difference / jnp.where(chroma > 0, chroma, 1.0)
    sextant = sextant + jnp.where(is_red, 0.0, jnp.where(is_green, 2.0, 4.0))

    def channel(offset: float) -> jax.Array:
        angle = offset + sextant + 6.0 * turns
        angle = angle - 6.0 * jnp.floor(angle / 6.0)
        return high - chroma * jnp.clip(jnp.minimum(angle, 4.0 - angle), 0.0, 1.0)

    return jnp.stack([channel(5.0), channel(3.0), channel(1.0)])


CHANGES = (adjust_brightness, adjust_contrast, adjust_saturation, shift_hue)


def jitter(
    x: Float[Array, "3 t h w"], order: Int[Array, " 4"], factors: Float[Array, " 4"]
) -> Float[Array, "3 t h w"]:
    """Brightness, contrast, saturation and hue, each once, in the given order.

    Under vmap, where each video has its own order, every step computes all four changes and takes
    one of them: exact, without one device waiting for another, and three of the four share most
    of their work.

    Args:
      x: frames of one video.
      order: a permutation of BRIGHTNESS, CONTRAST, SATURATION, HUE.
      factors: by the same numbers; the hue's is in turns.
    """

    def step(x: jax.Array, change: jax.Array) -> tuple[jax.Array, None]:
        return jax.lax.switch(change, CHANGES, x, factors[change]), None

    # A scan, as XLA fuses unrolled steps into one that computes all earlier ones again.
    return jax.lax.scan(step, x, order)[0]
