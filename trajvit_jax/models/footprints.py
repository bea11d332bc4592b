"""Which cells feed which token: for pictures, and for the way back to a map of space-time.

A tokenization is a labelling of space-time. `VideoTextModel.encode_video` names either `labels`,
[b, t, h, w], the slot that a cell feeds, or `weights`, [b, n, t, h, w], how much of each cell is
in the n tokens after CLS; for trajectories `labels` are what the model is given. ViViT's alone
number the tokens of another intermediate, from 1 (see `VideoTokenizer`).
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Integer


def labels_of(weights: Float[Array, "b n t h w"]) -> Int[Array, "b t h w"]:
    """The slot that has most of each cell, from 1: for pictures."""
    return weights.argmax(1).astype(jnp.int32) + 1


def footprint(
    named: Mapping[str, jax.Array], labels: Integer[Array, "b t y x"]
) -> Integer[Array, "b _ _ _"]:
    """The token that each cell feeds, of any model; 0 = none.

    Where tokens weigh many cells, the one that has most of it.

    Args:
      named: intermediates of `VideoTextModel.encode_video`.
      labels: what it was given: trajectories are their own.
    """
    if "labels" in named:
        return named["labels"]
    return labels_of(named["weights"]) if "weights" in named else labels


def at_pixels(
    labels: Integer[Array, "b t h w"], frames: int, height: int, width: int
) -> Integer[Array, "b frames height width"]:
    """The same labels for frames and pixels of which cells are whole blocks.

    Raises:
      ValueError: a clip that the cells do not divide.
    """
    for axis, size in enumerate((frames, height, width), start=1):
        if size % labels.shape[axis]:
            raise ValueError(
                f"{frames} frames of {height}x{width} are no multiple of "
                f"{list(labels.shape[1:])} cells"
            )
        labels = jnp.repeat(labels, size // labels.shape[axis], axis=axis)
    return labels


def dense_by_labels(
    states: Float[Array, "b s d"], labels: Integer[Array, "b t h w"]
) -> Float[Array, "b t h w d"]:
    """Each cell's token (paper, supplementary §9: merged features go back to all their patches).

    Args:
      states: of slots, one video a row.
      labels: slot of each cell; zeros where there is none.
    """
    b = len(labels)
    dense = jnp.take_along_axis(states, labels.reshape(b, -1, 1), axis=1)
    dense = dense.reshape(*labels.shape, -1)
    return jnp.where((labels > 0)[..., None], dense, 0)


def dense_by_weights(
    states: Float[Array, "b s d"], weights: Float[Array, "b n t h w"]
) -> Float[Array, "b t h w d"]:
    """Each cell's mean of the tokens, by how much of the cell is in each.

    Args:
      states: of slots, one video a row, CLS first.
      weights: of the tokens after CLS.
    """
    share = weights / jnp.maximum(weights.sum(1, keepdims=True), 1e-12)
    tokens = states[:, 1 : 1 + weights.shape[1]]
    return jnp.einsum("bnthw,bnd->bthwd", share.astype(states.dtype), tokens)
