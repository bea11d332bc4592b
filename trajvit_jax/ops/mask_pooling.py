"""What lies under a trajectory's mask, frame by frame: mean features and boxes.

Labels are slots: 0 = no token, i = the token in slot i. Slots that own no cell of a frame
get zeros there, and an area of zero says so. Labels must be below `slots`: what lies
outside vanishes in `segment_sum`, so callers check ranges before compilation.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def _cells(labels: Int[Array, "b t h w"], slots: int) -> Int[Array, " cells"]:
    """One segment number per cell, distinct for every frame of every video."""
    b, t, h, w = labels.shape
    frame = jnp.arange(b * t, dtype=jnp.int32).reshape(b, t, 1, 1) * slots
    return (labels.astype(jnp.int32) + frame).reshape(-1)


def areas(labels: Int[Array, "b t h w"], slots: int) -> Float[Array, "b s t"]:
    """Cells that each slot owns in each frame (float32)."""
    b, t = labels.shape[:2]
    ones = jnp.ones(labels.size, jnp.float32)
    counts = jax.ops.segment_sum(ones, _cells(labels, slots), num_segments=b * t * slots)
    return counts.reshape(b, t, slots).transpose(0, 2, 1)


def pool_masks(
    features: Float[Array, "b t h w d"],
    labels: Int[Array, "b t h w"],
    slots: int,
    *,
    eps: float = 1e-6,
) -> Float[Array, "b s t d"]:
    """Mean feature under each slot's mask in each frame, eq. (1) of the paper (float32)."""
    b, t, _, _, d = features.shape
    sums = jax.ops.segment_sum(
        features.astype(jnp.float32).reshape(-1, d),
        _cells(labels, slots),
        num_segments=b * t * slots,
    )
    sums = sums.reshape(b, t, slots, d).transpose(0, 2, 1, 3)
    return sums / (areas(labels, slots)[..., None] + eps)


def boxes(labels: Int[Array, "b t h w"], slots: int) -> Float[Array, "b s t 4"]:
    """(x0, y0, x1, y1) in [0, 1], max exclusive, of each slot in each frame; 0 where absent."""
    b, t, h, w = labels.shape
    cells = _cells(labels, slots)
    count = b * t * slots
    sides = []
    for index, size in ((jnp.arange(w)[None, :], w), (jnp.arange(h)[:, None], h)):
        position = jnp.broadcast_to(index.astype(jnp.int32), labels.shape).reshape(-1)
        low = jax.ops.segment_min(position, cells, num_segments=count)
        high = jax.ops.segment_max(position, cells, num_segments=count)
        # Empty segments hold the integer limits: clip before the +1 can overflow.
        sides.append((jnp.clip(low, 0, size) / size, (jnp.clip(high, -1, size) + 1) / size))
    (x0, x1), (y0, y1) = sides
    box = jnp.stack([x0, y0, x1, y1], -1).reshape(b, t, slots, 4).transpose(0, 2, 1, 3)
    return jnp.where(areas(labels, slots)[..., None] > 0, box, 0.0)
