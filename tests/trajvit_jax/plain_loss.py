"""The contrastive loss with all pairs in memory: what the one in blocks is compared with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer


def contrastive_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    temperature: Float[Array, ""],
    ids: Integer[Array, "b k"],
    present: Bool[Array, " b"] | None = None,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """As `trajvit_jax.losses.blockwise_contrastive_loss`."""
    present = jnp.ones(len(ids), bool) if present is None else present
    matches = (ids[:, None] == ids[None]).all(-1) & present
    logits = jnp.where(present, video @ text.T / temperature, -1e30)
    transposed = jnp.where(present, text @ video.T / temperature, -1e30)
    share = matches / jnp.maximum(matches.sum(1, keepdims=True), 1)
    losses = -sum((jax.nn.log_softmax(x) * share).sum(1) for x in (logits, transposed)) / 2
    right = matches[jnp.arange(len(ids)), transposed.argmax(1)]
    count = jnp.maximum(present.sum(), 1)
    loss, accuracy = (jnp.where(present, x, 0).sum() / count for x in (losses, right))
    return loss, {"accuracy": accuracy}
