"""The contrastive objective (paper §3.2; CLIP, Radford et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Integer

from trajvit_jax.ops.mesh import all_parts, by_device

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

    to_text, _ = _of_rows(logits, matches)
    to_video, best = _of_rows(logits.T, matches.T)
    return (to_text.mean() + to_video.mean()) / 2, {"accuracy": best.mean()}


def blockwise_contrastive_loss(
    video: Float[Array, "b d"],
    text: Float[Array, "b d"],
    temperature: Float[Array, ""],
    ids: Integer[Array, "b k"],
    *,
    block: int = 1024,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """`contrastive_loss` of `shared_positives(ids)`, where no device holds the pairs of all.

    A device has the rows of its own videos and captions, `block` of them at a time, against
    all others: it holds block x b similarities, and computes them again for the gradient.

    Args:
      video: unit vectors, as is `text`.
      text: of the captions, in the same order.
      temperature: what similarities are divided by.
      ids: samples whose ids (k words each) are equal are positives of each other.
      block: rows at a time.
    """

    def own_rows(
        temperature: jax.Array, video: jax.Array, text: jax.Array, ids: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        videos, texts, all_ids = all_parts(video), all_parts(text), all_parts(ids)

        @jax.checkpoint
        def row(own: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            video, text, ids = own
            matches = (all_ids == ids).all(-1)
            to_text, _ = _of_rows(texts @ video / temperature, matches)
            to_video, best = _of_rows(videos @ text / temperature, matches)
            return to_text + to_video, best

        return jax.lax.map(row, (video, text, ids), batch_size=block)

    video, text = video.astype(jnp.float32), text.astype(jnp.float32)
    losses, best = by_device(own_rows)(temperature, video, text, ids)
    return losses.mean() / 2, {"accuracy": best.mean()}


def _of_rows(
    logits: Float[Array, "*b c"], matches: Bool[Array, "*b c"]
) -> tuple[Float[Array, "*b"], Bool[Array, "*b"]]:
    """Cross-entropy of each row, and whether its best column is a match."""
    targets = matches / matches.sum(-1, keepdims=True)
    best = jnp.take_along_axis(matches, logits.argmax(-1, keepdims=True), axis=-1)
    return -(jax.nn.log_softmax(logits, -1) * targets).sum(-1), best[..., 0]
