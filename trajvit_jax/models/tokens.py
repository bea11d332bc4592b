"""The one token contract of all video models."""

from __future__ import annotations

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Tokens:
    """Tokens in rows of slots; a row may hold one video or several.

    Attributes:
      values: what the encoder reads. A CLS slot's value is ignored: the encoder has its own.
      video: which video of the batch a slot belongs to, counted from 1; 0 = empty slot.
      query: 0 = the video's CLS slot; 1.. = which of a trajectory's tokens (1, 2 or 4).
    """

    values: Float[Array, "r s d"]
    video: Int[Array, "r s"]
    query: Int[Array, "r s"]


def one_video_a_row(values: Float[Array, "b s d"], valid: Bool[Array, "b s"]) -> Tokens:
    """The plain layout: row i is video i + 1, slot 0 its CLS, `valid` the other slots in use."""
    b, s, _ = values.shape
    number = jnp.broadcast_to(jnp.arange(1, b + 1, dtype=jnp.int32)[:, None], (b, s))
    is_cls = jnp.arange(s) == 0
    video = jnp.where(valid | is_cls, number, 0)
    query = jnp.broadcast_to(jnp.where(is_cls, 0, 1).astype(jnp.int32), (b, s))
    return Tokens(values, video, query)


def same_video(tokens: Tokens) -> Bool[Array, "r 1 s s"]:
    """Attention mask: slots see the slots of their own video; empty slots are seen by none."""
    query, key = tokens.video[:, :, None], tokens.video[:, None, :]
    return ((query == key) & (key > 0))[:, None]


def cls_states(
    states: Float[Array, "r s d"], tokens: Tokens, videos: int
) -> Float[Array, "videos d"]:
    """The encoder's state at each video's CLS slot, in the order of the batch."""
    number = jnp.where((tokens.query == 0) & (tokens.video > 0), tokens.video, 0).reshape(-1)
    flat = states.reshape(-1, states.shape[-1])
    return jax.ops.segment_sum(flat, number, num_segments=videos + 1)[1:]
