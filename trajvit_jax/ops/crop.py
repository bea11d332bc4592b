"""A crop of a video, resized: pixels by two small matrix products, labels by nearest cells.

The box is traced, so one compiled program serves all crops, and mirroring costs nothing: the
matrices' rows and the cells' numbers are taken in reverse.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32, Int, Int32, Integer, Num


class Box(NamedTuple):
    """A rectangle of whole pixels."""

    top: Int[Array, ""]
    left: Int[Array, ""]
    height: Int[Array, ""]
    width: Int[Array, ""]


def crop_pixels(
    video: Num[Array, "t h w c"], box: Box, *, size: int, mirror: Bool[Array, ""]
) -> Float32[Array, "c t {size} {size}"]:
    """Resizes what is in the box; channels come first.

    The filter is a triangle, widened when shrinking: bilinear with antialiasing, as torchvision's
    `resized_crop` of tensors and Pillow's `resize`. Pixels outside the box are not seen, which is
    why this is not `jax.image.scale_and_translate`: there, the neighbourhood leaks into the border.
    The products take JAX's default precision: TF32 on a GPU, which rounds finer than the 8 bits
    that pixels have.

    Args:
      video: frames in any unit.
      box: in pixels of the frames, within them and not empty.
      size: pixels a side of the result.
      mirror: left and right change places.
    """
    rows = _weights(box.top, box.height, video.shape[1], size)
    columns = _weights(box.left, box.width, video.shape[2], size)
    columns = jnp.where(mirror, columns[::-1], columns)
    x = jnp.einsum("yh,thwc->ctyw", rows, video.astype(jnp.float32))
    return jnp.einsum("xw,ctyw->ctyx", columns, x)


def crop_labels(
    labels: Integer[Array, "t y x"],
    box: Box,
    *,
    frame: tuple[int, int],
    size: int,
    mirror: Bool[Array, ""],
) -> Int32[Array, "t {size} {size}"]:
    """The label under the centre of each cell of the resized crop.

    Args:
      labels: of whole frames, at any resolution.
      box: in pixels of the frames.
      frame: height and width of the frames in pixels.
      size: cells a side of the result.
      mirror: left and right change places.

    Raises:
      ValueError: frames and label maps so large that cell numbers exceed 32 bits.
    """
    rows = _nearest(box.top, box.height, frame[0], labels.shape[1], size)
    columns = _nearest(box.left, box.width, frame[1], labels.shape[2], size)
    columns = jnp.where(mirror, columns[::-1], columns)
    return labels[:, rows][:, :, columns].astype(jnp.int32)


def _weights(start: jax.Array, length: jax.Array, source: int, target: int) -> jax.Array:
    """What each of `source` pixels adds to each of `target` ones that cover the interval."""
    scale = length / target
    centre = start + (jnp.arange(target) + 0.5) * scale
    pixel = jnp.arange(source)
    distance = jnp.abs(pixel + 0.5 - centre[:, None])
    weights = jnp.maximum(0.0, 1.0 - distance / jnp.maximum(scale, 1.0))
    weights = jnp.where((pixel >= start) & (pixel < start + length), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _nearest(
    start: jax.Array, length: jax.Array, source: int, cells: int, target: int
) -> jax.Array:
    """The cell, of `cells` over `source` pixels, in which each centre of the interval lies.

    In whole numbers: in floating point, a centre on the border of two cells would fall to either.
    """
    common = math.gcd(source, cells)
    source, cells = source // common, cells // common
    if 2 * target * source * common * cells >= 2**31:
        raise ValueError(
            f"label maps of {cells * common} cells over {source * common} pixels, resized to "
            f"{target}, exceed 32-bit arithmetic; store them at the size of the frames"
        )
    centres = 2 * target * start + (2 * jnp.arange(target) + 1) * length
    return centres * cells // (2 * target * source)
