"""Rotary positions as Llama-3 has them: halves of each head are turned, slow waves stretched."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from trajvit_jax.llm.settings import LlamaSettings


def frequencies(settings: LlamaSettings) -> Float32[np.ndarray, " half"]:
    """Radians a position of each pair of a head's dimensions (Su et al.; Llama-3.1's scaling)."""
    width, scaling = settings.each_head, settings.scaling
    # In float32 as transformers computes them: at position 10,000 a last bit turns a wave visibly.
    exponent = np.arange(0, width, 2, dtype=np.float32) / np.float32(width)
    plain = (np.float32(1) / np.float32(settings.theta) ** exponent).astype(np.float32)
    if scaling is None:
        return plain
    wave = 2 * math.pi / plain
    slowed = plain / np.float32(scaling.factor)
    turns = scaling.context / wave
    span = scaling.high_frequency - scaling.low_frequency
    share = (turns - scaling.low_frequency) / span
    mixed = (1 - share) * slowed + share * plain
    found = np.where(turns < scaling.low_frequency, slowed, plain)
    between = (turns >= scaling.low_frequency) & (turns <= scaling.high_frequency)
    return np.where(between, mixed, found).astype(np.float32)


def turn(
    x: Float[Array, "b l heads e"],
    positions: Int[Array, "b l"],
    frequency: Float32[np.ndarray | Array, " half"],
) -> Float[Array, "b l heads e"]:
    """Turns dimension i of every head with dimension i + e/2, by its position."""
    angle = positions.astype(jnp.float32)[..., None, None] * frequency
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    return jnp.concatenate(turned, -1).astype(x.dtype)
