"""The one token contract of all video models, and the rows of slots that hold tokens."""

from __future__ import annotations

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from trajvit_jax.ops.mesh import by_device, part_number, parts
from trajvit_jax.ops.ordered_sums import count_segments


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


@no_type_check
@struct.dataclass
class Rows:
    """Where a batch's tokens go: the plan of rows that may hold several videos.

    The batch is cut into groups of equally many videos, and a group has rows of its own: what
    runs on several devices, or in parts, is cut between groups. A video's slots are its CLS,
    then its trajectories, each in as many slots as it has tokens; label maps name a trajectory
    by the first of its slots.

    Attributes:
      video: which video of the group a slot is planned for, counted from 1; 0 = none.
      query: as in `Tokens`.
      row: the row of each video, counted within the group from 0.
    """

    video: Int[Array, "g r s"]
    query: Int[Array, "g r s"]
    row: Int[Array, "g v"]

    def first(self) -> Int[Array, "g v"]:
        """The slot of each video's CLS in its row."""
        g, v = self.row.shape
        slots = jnp.arange(self.video.shape[-1], dtype=jnp.int32)
        group = jnp.arange(g, dtype=jnp.int32)[:, None, None]
        is_cls = (self.query == 0) & (self.video > 0)
        number = jnp.where(is_cls, group * v + self.video - 1, g * v)
        slot = jnp.broadcast_to(slots, number.shape)
        # Each video has one CLS slot; the sum over it is its place.
        first = jax.ops.segment_sum(slot.reshape(-1), number.reshape(-1), num_segments=g * v)
        return first.reshape(g, v)

    def merged(self) -> Rows:
        """The same rows as one group."""
        g, r, s = self.video.shape
        v = self.row.shape[1]
        group = jnp.arange(g, dtype=jnp.int32)[:, None]
        video = jnp.where(self.video > 0, self.video + (group * v)[..., None], 0)
        return Rows(
            video.reshape(1, g * r, s),
            self.query.reshape(1, g * r, s),
            (self.row + group * r).reshape(1, g * v),
        )


def plain_queries(rows: int, slots: int, queries: int = 1) -> Int[Array, "rows slots"]:
    """`Tokens.query` of the plain layout: a CLS, then each trajectory's tokens in turn."""
    slot = jnp.arange(slots, dtype=jnp.int32)
    return jnp.broadcast_to(jnp.where(slot == 0, 0, (slot - 1) % queries + 1), (rows, slots))


def one_video_a_row(
    values: Float[Array, "b s d"], valid: Bool[Array, "b s"], *, queries: int = 1
) -> Tokens:
    """The plain layout: row i is video i + 1, slot 0 its CLS, `valid` the other slots in use."""
    b, s, _ = values.shape
    number = jnp.broadcast_to(jnp.arange(1, b + 1, dtype=jnp.int32)[:, None], (b, s))
    query = plain_queries(b, s, queries)
    return Tokens(values, jnp.where(valid | (query == 0), number, 0), query)


def same_video(tokens: Tokens) -> Bool[Array, "r 1 s s"]:
    """Attention mask: slots see the slots of their own video; empty slots are seen by none."""
    query, key = tokens.video[:, :, None], tokens.video[:, None, :]
    return ((query == key) & (key > 0))[:, None]


def no_mask(x: Float[Array, "b n d"]) -> Bool[Array, "b 1 1 n"]:
    """Attention mask: every slot of a row sees every other."""
    return jnp.ones((x.shape[0], 1, 1, x.shape[1]), bool)


def cls_states(
    states: Float[Array, "r s d"], tokens: Tokens, videos: int
) -> Float[Array, "videos d"]:
    """The encoder's state at each video's CLS slot, in the order of the batch; 0 without one."""

    def pick(_: None, states: jax.Array, video: jax.Array, query: jax.Array) -> jax.Array:
        own = videos // parts()
        first = part_number() * own
        number = jnp.where((query == 0) & (video > 0), video - 1 - first, own).reshape(-1)
        slot = jnp.arange(number.size, dtype=jnp.int32)
        # Each video has one CLS slot; the sum over it is its place. One without has none: the
        # places are all different, and the gradient needs no sum.
        place = jax.ops.segment_sum(slot, number, num_segments=own)
        beyond = number.size + jnp.arange(own, dtype=jnp.int32)
        place = jnp.where(count_segments(number, own) > 0, place, beyond)
        flat = states.reshape(-1, states.shape[-1])
        return flat.at[place].get(mode="fill", fill_value=0, unique_indices=True)

    return by_device(pick)(None, states, tokens.video, tokens.query)


def unpack(tokens: Tokens, videos: int) -> tuple[Tokens, Int[Array, "r s"]]:
    """The same tokens, one video a row, and the slot that each came to.

    Tokens keep their order; empty slots go nowhere, and their slot number means nothing.
    """
    r, s, d = tokens.values.shape
    same = (tokens.video[:, :, None] == tokens.video[:, None, :]) & jnp.tri(s, dtype=bool)
    slot = same.sum(-1) - 1
    # Video 0, the empty slots, takes an extra row that is cut off.
    index = (tokens.video * s + slot).reshape(-1)

    def place(x: jax.Array) -> jax.Array:
        shape = ((videos + 1) * s, *x.shape[2:])
        placed = jnp.zeros(shape, x.dtype).at[index].set(x.reshape(r * s, *x.shape[2:]))
        return placed.reshape(videos + 1, s, *x.shape[2:])[1:]

    return Tokens(place(tokens.values), place(tokens.video), place(tokens.query)), slot
