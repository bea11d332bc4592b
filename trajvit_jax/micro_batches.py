"""Contrastive training in parts that together are the large batch (after Gao et al., GradCache).

The loss compares all pairs of the batch, so gradients of small batches cannot be averaged. But
behind the backbone no video depends on another: embeddings can be made part by part, each part
forgetting what it held and computing it again for its gradient. The backbone itself, whose batch
normalization does couple videos, runs on the whole batch. The result is that of one large batch,
up to the order of sums.
"""

from __future__ import annotations

import functools
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from trajvit_jax.data.batch import Batch
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import BATCH, keep_sharded, parts

NormScope = Literal["batch", "part"]


def embed_in_parts(
    model: VideoTextModel, batch: Batch, count: int, *, norm_scope: NormScope = "batch"
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    """Embeddings of a training batch's videos and captions; moves the running statistics.

    Args:
      model: in the step.
      batch: at the model's sizes.
      count: parts; 1 = the whole batch at once, nothing computed twice.
      norm_scope: whose statistics the backbone's normalization takes: the 'batch', or each
        'part', with less memory and other numbers than those of the large batch.

    Raises:
      ValueError: a batch whose groups the parts do not divide on every device.
    """
    pixels = model.pixels(batch.video)
    text = (batch.text, batch.text_mask)
    # Frames of absent videos stay out of the statistics.
    valid = None
    if batch.present is not None:
        valid = jnp.broadcast_to(batch.present[:, None], pixels.shape[:2])
    if count == 1:
        features = model.features(pixels, train=True, valid=valid)
        video = model.embed_features(features, pixels, batch.labels, batch.rows)
        return video, model.embed_text(*text)
    by_part = norm_scope == "part"
    features = None if by_part else model.features(pixels, train=True, valid=valid)
    graph, state = nnx.split(model)

    @jax.checkpoint
    def embed(
        state: nnx.State, part: tuple
    ) -> tuple[tuple[jax.Array, jax.Array], nnx.State | None]:
        features, pixels, labels, rows, text, valid = part
        model = nnx.merge(graph, state)
        if by_part:
            features = model.features(pixels, train=True, valid=valid)
        embedded = model.embed_features(features, pixels, labels, rows), model.embed_text(*text)
        return embedded, nnx.state(model, nnx.BatchStat) if by_part else None

    whole = (features, pixels, batch.labels, batch.rows, text, valid)
    cut_whole = jax.tree.map(lambda x: _cut(x, count), whole)
    embedded, moved = jax.lax.map(functools.partial(embed, state), cut_whole)
    if by_part:  # each part moved them from where they were: together, by the mean
        nnx.update(model, jax.tree.map(lambda x: x.mean(0), moved))
    return jax.tree.map(lambda x: _join(x, count), embedded)


def _cut(x: jax.Array, count: int) -> jax.Array:
    """[b, ...] -> [count, b / count, ...]; every device keeps what it has."""
    devices = parts()
    if x.shape[0] % (devices * count):
        raise ValueError(
            f"a batch of {x.shape[0]} videos, or groups of them, on {devices} devices is not cut "
            f"into {count} micro-batches; change micro_batches or the batch"
        )
    x = x.reshape(devices, count, -1, *x.shape[1:]).swapaxes(0, 1)
    x = x.reshape(count, -1, *x.shape[3:])
    if devices == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(None, BATCH))


def _join(x: jax.Array, count: int) -> jax.Array:
    """Undoes `_cut`."""
    devices = parts()
    x = x.reshape(count, devices, -1, *x.shape[2:]).swapaxes(0, 1)
    return keep_sharded(x.reshape(-1, *x.shape[3:]))
