"""Rotary position embedding on interleaved pairs (Su et al., RoFormer)."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Real


def rotate(
    x: Float[Array, "*b l heads d"],
    positions: Real[Array, " l"],
    *,
    dims: int,
    theta: float = 10_000.0,
) -> Float[Array, "*b l heads d"]:
    """Rotates the first `dims` of every head by its position; the rest passes unchanged.

    Raises:
      ValueError: `dims` odd, or more than the head has.
    """
    if dims % 2 or dims > x.shape[-1]:
        raise ValueError(f"rotary dims must be even and <= head width {x.shape[-1]}, got {dims}")
    frequency = theta ** (-jnp.arange(0, dims, 2, dtype=jnp.float32) / dims)
    angle = positions.astype(jnp.float32)[:, None, None] * frequency
    sine, cosine = jnp.sin(angle).astype(x.dtype), jnp.cos(angle).astype(x.dtype)
    even, odd = x[..., :dims:2], x[..., 1:dims:2]
    turned = jnp.stack([even * cosine - odd * sine, odd * cosine + even * sine], -1)
    return jnp.concatenate([turned.reshape(*x.shape[:-1], dims), x[..., dims:]], -1)
