"""The contrastive objective (paper §3.2; CLIP, Radford et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer, Shaped

from trajvit_jax.ops.impl import EXACT
from trajvit_jax.ops.mesh import all_parts, by_device

TEMPERATURE_RANGE = (0.001, 0.5)
_NEVER = -1e30  # a logit whose exponential is 0, and with which one can still calculate


def clamp_temperature(temperature: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Keeps the learned temperature in [0.001, 0.5]; applied to the parameter, not in the graph."""
    return jnp.clip(temperature, *TEMPERATURE_RANGE)


def blockwise_contrastive_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    temperature: Float[Array, ""],
    ids: Integer[Array, "b k"],
    present: Bool[Array, " b"] | None = None,
    *,
    block: int = 1024,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """Symmetric cross-entropy over all pairs of a batch, and measures of it.

    Pairs of equal ids match; each row's target mass is shared equally among them. No device holds
    the pairs of all: one has the rows of its own videos and captions, `block` of them at a time,
    against all others: it holds block x b similarities, and computes them again for the gradient.

    Args:
      video: unit vectors, as is `text`.
      text: of the captions, in the same order.
      temperature: what similarities are divided by.
      ids: samples whose ids (k words each) are equal are positives of each other.
      present: samples that count; the loss is that of the batch without the others. None: all.
      block: rows at a time.

    Returns:
      The mean of both directions, and `accuracy`: how often a caption's best video (of the
      batch) is a positive.
    """

    def own_rows(
        temperature: jax.Array,
        video: jax.Array,
        text: jax.Array,
        ids: jax.Array,
        present: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        videos, texts, all_ids = all_parts(video), all_parts(text), all_parts(ids)
        columns = all_parts(present)

        @jax.checkpoint
        def row(own: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            video, text, ids = own
            matches = (all_ids == ids).all(-1)
            to_text, _ = _of_rows(_cosines(texts, video) / temperature, matches, columns)
            to_video, best = _of_rows(_cosines(videos, text) / temperature, matches, columns)
            return to_text + to_video, best

        return jax.lax.map(row, (video, text, ids), batch_size=block)

    video, text = video.astype(jnp.float32), text.astype(jnp.float32)
    present = jnp.ones(len(ids), bool) if present is None else present
    losses, best = by_device(own_rows)(temperature, video, text, ids, present)
    return _mean(losses, present) / 2, {"accuracy": _mean(best, present)}


def _mean(values: Shaped[Array, " b"], present: Bool[Array, " b"]) -> Float[Array, ""]:
    """Over the samples that count; 0 where none does."""
    return jnp.where(present, values, 0).sum() / jnp.maximum(present.sum(), 1)


def _cosines(vectors: Float[Array, "c d"], vector: Float[Array, " d"]) -> Float[Array, " c"]:
    """Products of float32 numbers: dividing by 0.001 shows what TF32 would round off."""
    return jnp.matmul(vectors, vector, precision=EXACT)


def _of_rows(
    logits: Float[Array, "*b c"], matches: Bool[Array, "*b c"], present: Bool[Array, " c"]
) -> tuple[Float[Array, "*b"], Bool[Array, "*b"]]:
    """Cross-entropy of each row over the present columns, and whether its best one is a match."""
    logits, matches = jnp.where(present, logits, _NEVER), matches & present
    # The row of a sample that is absent has no match, and its loss does not count.
    targets = matches / jnp.maximum(matches.sum(-1, keepdims=True), 1)
    best = jnp.take_along_axis(matches, logits.argmax(-1, keepdims=True), axis=-1)
    return -(jax.nn.log_softmax(logits, -1) * targets).sum(-1), best[..., 0]
