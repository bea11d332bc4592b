"""Contrastive training in parts that together are the large batch (after Gao et al., GradCache).

The loss compares all pairs of the batch, so gradients of small batches cannot be averaged. But
behind the backbone no video depends on another: embeddings can be made part by part, each part
forgetting what it held and computing it again for its gradient. The backbone itself, whose batch
normalization does couple videos, runs on the whole batch. The result is that of one large batch,
up to the order of sums.
"""

from __future__ import annotations

import functools

import jax
from flax import nnx
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from trajvit_jax.data.batch import Batch
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.ops.mesh import BATCH, keep_sharded, parts


def embed_in_parts(
    model: VideoTextModel, batch: Batch, count: int
) -> tuple[Float[Array, "b p"], Float[Array, "b p"]]:
    """Embeddings of a training batch's videos and captions; moves the running statistics.

    Args:
      model: in the step.
      batch: at the model's sizes.
      count: parts; 1 = the whole batch at once, nothing computed twice.

    Raises:
      ValueError: a batch whose groups the parts do not divide on every device.
    """
    pixels = model.pixels(batch.video)
    features = model.tokenizer.features(pixels, train=True)
    text = (batch.text, batch.text_mask)
    if count == 1:
        video = model.embed_features(features, pixels, batch.labels, batch.rows)
        return video, model.embed_text(*text)
    graph, state = nnx.split(model)

    @jax.checkpoint
    def embed(state: nnx.State, part: tuple) -> tuple[jax.Array, jax.Array]:
        features, pixels, labels, rows, text = part
        model = nnx.merge(graph, state)
        return model.embed_features(features, pixels, labels, rows), model.embed_text(*text)

    whole = (features, pixels, batch.labels, batch.rows, text)
    cut_whole = jax.tree.map(lambda x: _cut(x, count), whole)
    return jax.tree.map(
        lambda x: _join(x, count), jax.lax.map(functools.partial(embed, state), cut_whole)
    )


def _cut(x: jax.Array, count: int) -> jax.Array:
    """[b, ...] -> [count, b / count, ...]; every device keeps what it has."""
    devices = parts()
    if x.shape[0] % (devices * count):
        raise ValueError(
            f"{x.shape[0]} groups (or videos, where rows are not packed) on {devices} devices are "
            f"not cut into {count} micro-batches; change micro_batches or the batch"
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
