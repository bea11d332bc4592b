"""Run-length tokenization: tubelets that repeat the one before them are no tokens.

RLT: Choudhury et al., NeurIPS 2024. A tubelet is compared with the one before it in time: its
last frame with that one's first.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int32, Num


def changes(video: Num[Array, "b t h w c"], *, tubelet: int, patch: int) -> Float[Array, "b k y x"]:
    """How much each tubelet has changed: mean absolute difference, infinite in the first step.

    Args:
      video: pixels, normalized or not: the threshold is in their unit.
      tubelet: frames of one.
      patch: pixels of its side.
    """
    b, t, h, w, c = video.shape
    video = video.astype(jnp.float32)
    before, after = video[:, :-tubelet:tubelet], video[:, 2 * tubelet - 1 :: tubelet]
    difference = jnp.abs(after - before)
    blocks = difference.reshape(b, t // tubelet - 1, h // patch, patch, w // patch, patch, c)
    return jnp.pad(
        blocks.mean((3, 5)).mean(-1), ((0, 0), (1, 0), (0, 0), (0, 0)), constant_values=jnp.inf
    )


def changed(change: Float[Array, "b k y x"], threshold: float) -> Bool[Array, "b k y x"]:
    """The tubelets that are tokens: the first step's, and those that changed by more.

    Args:
      change: as `changes` gives it.
      threshold: in its unit; infinite = the first step alone.
    """
    return (change > threshold) | jnp.isinf(change)


def run_lengths(kept: Bool[Array, "b k y x"]) -> Int32[Array, "b k y x"]:
    """How many steps each kept tubelet stands for: itself and the ones after it that are not.

    1 for those that are not kept, too.
    """

    def step(length: jax.Array, kept: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.where(kept, 1, length + 1), length

    after = jnp.ones(kept.shape[:1] + kept.shape[2:], jnp.int32)
    _, lengths = jax.lax.scan(step, after, jnp.moveaxis(kept, 1, 0), reverse=True)
    return jnp.where(kept, jnp.moveaxis(lengths, 0, 1), 1)


def run_starts(kept: Bool[Array, "b k y x"]) -> Int32[Array, "b k y x"]:
    """The step of the tubelet that each one repeats; its own if it is kept."""
    step = jnp.arange(kept.shape[1], dtype=jnp.int32)[:, None, None]
    return jax.lax.cummax(jnp.where(kept, step, 0), axis=1)
