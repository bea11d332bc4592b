"""Perceiver resampler: learned queries read a trajectory's frames (Alayrac et al., Flamingo)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, DTypeLike, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.linear import Linear
from trajvit_jax.models.settings import ResamplerSettings
from trajvit_jax.models.transformer import Layer
from trajvit_jax.ops.impl import Impl
from trajvit_jax.ops.interpolation import resize_linear
from trajvit_jax.ops.resampler_attention import (
    CrossAttention,
    Lift,
    attend_frames,
    attention_of_queries,
)
from trajvit_jax.ops.wide_gradients import add

_EPS = 1e-5
_POSITIONS = 16  # rows of the learned table: the frames that the paper trains on


class _ReadFrames(nnx.Module):
    def __init__(
        self,
        width: int,
        heads: int,
        settings: ResamplerSettings,
        *,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.heads, self.rotary = heads, settings.frame_positions == "rotary"
        shared = {"dtype": dtype, "rngs": rngs}
        # In float32: the first layer's queries are parameters, and so is what they become here.
        self.norm_query = LayerNorm(width, epsilon=_EPS, rngs=rngs)
        self.norm_frames = LayerNorm(width, epsilon=_EPS, **shared)
        self.to_query = Linear(width, width, use_bias=False, **shared)
        self.to_key_value = Linear(width, 2 * width, use_bias=False, **shared)
        self.to_out = Linear(width, width, use_bias=False, **shared)
        block = {"pre_norm": True, "eps": _EPS, "init_std": 0.02}
        self.latent_block = (
            Layer(width, heads, 2 * width, **block, **shared) if settings.latent_block else None
        )

    def __call__(
        self,
        queries: jax.Array,
        frames: jax.Array,
        present: jax.Array,
        lift: Lift | None,
        *,
        impl: Impl,
    ) -> jax.Array:
        """queries [1 or n, q, d], frames [n, t, c], present [n, t]: the queries, updated."""
        read = attend_frames(
            self.weights(), self.norm_query(queries), frames, present, lift=lift, impl=impl
        )
        queries = add(read, queries)
        if self.latent_block is not None:
            n, count, _ = queries.shape
            queries = self.latent_block(queries, jnp.ones((n, 1, 1, count), bool))
        return queries

    def weights(self) -> CrossAttention:
        key, value = jnp.split(self.to_key_value.kernel[...], 2, axis=-1)
        return CrossAttention(
            query=self.to_query.kernel[...],
            key=key,
            value=value,
            out=self.to_out.kernel[...],
            norm_scale=self.norm_frames.scale[...],
            norm_bias=self.norm_frames.bias[...],
            heads=self.heads,
            rotary=self.rotary,
            eps=_EPS,
        )


class Resampler(nnx.Module):
    """Turns a trajectory's vectors over frames into one vector a query (paper §3.2).

    Raises:
      ValueError: a width that the heads do not divide, or heads too narrow to turn.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        settings: ResamplerSettings,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        rotary = settings.frame_positions == "rotary"
        if width % (4 * heads if rotary else heads):
            raise ValueError(
                f"resampler width {width} does not divide into {heads} heads"
                + (" whose halves rotary positions turn in pairs" if rotary else "")
            )
        self.dtype = dtype
        start = jax.random.normal(rngs.params(), (settings.queries, width))
        self.query = nnx.Param(settings.query_std * start)
        self.positions = (
            None
            if rotary
            else nnx.Param(0.02 * jax.random.normal(rngs.params(), (_POSITIONS, width)))
        )
        self.layers = nnx.List(
            [
                _ReadFrames(width, heads, settings, dtype=dtype, rngs=rngs)
                for _ in range(settings.depth)
            ]
        )
        self.norm = LayerNorm(width, epsilon=_EPS, dtype=dtype, rngs=rngs)

    def __call__(
        self,
        frames: Float[Array, "b s t _"],
        present: Bool[Array, "b s t"],
        *,
        lift: Lift | None = None,
        impl: Impl = "fast",
    ) -> Float[Array, "b s q d"]:
        """Summaries of each slot's frames.

        Args:
          frames: a vector a frame, or with `lift` the features that it is made of.
          present: frames where the slot's trajectory is; others are not seen.
          lift: makes the vectors of the features.
          impl: as in `attend_frames`.
        """
        b, s, t, _ = frames.shape
        flat = self._flat(frames)
        if lift is not None and (self.positions is not None or len(self.layers) > 1):
            flat, lift = lift(flat), None  # read as vectors, or more than once
        flat = self._placed(flat)
        queries = self.query[...][None]
        for layer in self.layers:
            queries = layer(queries, flat, present.reshape(b * s, t), lift, impl=impl)
        return self.norm(queries).reshape(b, s, *queries.shape[1:])

    def _flat(self, frames: jax.Array) -> jax.Array:
        return frames.reshape(-1, *frames.shape[2:]).astype(self.dtype)

    def _placed(self, frames: jax.Array) -> jax.Array:
        """Frames with their learned positions, where there are any."""
        if self.positions is None:
            return frames
        table, t = self.positions[...], frames.shape[1]
        # Longer clips stretch the table, shorter ones read its first rows.
        table = resize_linear(table, t) if t > table.shape[0] else table[:t]
        return add(frames, table)

    def attention(
        self,
        frames: Float[Array, "b s t _"],
        present: Bool[Array, "b s t"],
        *,
        lift: Lift | None = None,
    ) -> Float[Array, "b s q t"]:
        """How much the last layer's queries read of each frame: for looking, not for training.

        The mean over heads, in float32; what is left to one is read of the queries themselves.
        Arguments are those of `__call__`.
        """
        b, s, t, _ = frames.shape
        flat = self._flat(frames)
        flat = self._placed(flat if lift is None else lift(flat))
        seen = present.reshape(b * s, t)
        queries = jnp.broadcast_to(self.query[...], (b * s, *self.query.shape))
        *first, last = self.layers
        for layer in first:
            queries = layer(queries, flat, seen, None, impl="reference")
        read = attention_of_queries(last.weights(), last.norm_query(queries), flat, seen)
        return read.reshape(b, s, *read.shape[1:])
