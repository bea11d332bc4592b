"""The contrastive objective (paper §3.2; CLIP, Radford et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

TEMPERATURE_RANGE = (0.001, 0.5)


def clamp_temperature(temperature: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Keeps the learned temperature in [0.001, 0.5]; applied to the parameter, not in the graph."""
    return jnp.clip(temperature, *TEMPERATURE_RANGE)


def shared_positives(ids: Integer[Array, "b k"]) -> Bool[Array, "b b"]:
    """Which pairs of samples count as positives: those whose ids (k words each) are equal."""
    return (ids[:, None] == ids[None]).all(-1)


def similarity(video: Float[Array, "b k d"], text: Float[Array, "c l d"]) -> Float[Array, "b c"]:
    """Dot products of k vectors a video with l vectors (prompts) a text, averaged over both."""
    video, text = video.astype(jnp.float32), text.astype(jnp.float32)
    return video.mean(1) @ text.mean(1).T


def contrastive_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    temperature: Float[Array, ""],
    positives: Bool[Array, "b b"] | None = None,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """Symmetric cross-entropy over all pairs of a batch, and measures of it.

    Args:
      video: unit vectors.
      text: unit vectors of the captions, in the same order.
      temperature: what similarities are divided by.
      positives: pairs that match, the diagonal included; each row's target mass is shared
        equally among them. None: the diagonal alone.

    Returns:
      The mean of both directions, and `accuracy`: how often a caption's best video (of the
      batch) is a positive.
    """
    logits = similarity(video[:, None], text[:, None]) / temperature
    matches = jnp.eye(len(logits), dtype=bool) if positives is None else positives

    def cross_entropy(logits: jax.Array, matches: jax.Array) -> jax.Array:
        targets = matches / matches.sum(-1, keepdims=True)
        return -(jax.nn.log_softmax(logits, -1) * targets).sum(-1).mean()

    loss = (cross_entropy(logits, matches) + cross_entropy(logits.T, matches.T)) / 2
    best = jnp.take_along_axis(matches.T, logits.T.argmax(-1)[:, None], axis=1)
    return loss, {"accuracy": best.mean()}
