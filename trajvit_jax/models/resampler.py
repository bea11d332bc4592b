"""Perceiver resampler: a learned query reads a trajectory's frames (Alayrac et al., Flamingo)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trajvit_jax.ops.rotary import rotate


class _CrossAttention(nnx.Module):
    def __init__(self, width: int, heads: int, *, rotary: bool, rngs: nnx.Rngs):
        self.heads, self.rotary = heads, rotary
        self.norm_query = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.norm_frames = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.to_query = nnx.Linear(width, width, use_bias=False, rngs=rngs)
        self.to_key_value = nnx.Linear(width, 2 * width, use_bias=False, rngs=rngs)
        self.to_out = nnx.Linear(width, width, use_bias=False, rngs=rngs)

    def __call__(self, query: jax.Array, frames: jax.Array, present: jax.Array) -> jax.Array:
        """query [n, 1, d], frames [n, t, d], present [n, t]: the query's update."""
        n, t, d = frames.shape
        query = self.norm_query(query)
        keys = jnp.concatenate([query, self.norm_frames(frames)], axis=1)
        q = self.to_query(query).reshape(n, 1, self.heads, -1)
        k, v = jnp.split(self.to_key_value(keys), 2, axis=-1)
        k, v = k.reshape(n, t + 1, self.heads, -1), v.reshape(n, t + 1, self.heads, -1)
        if self.rotary:
            # The query stands at position 0 (no turn), so does its own key; frame t at t + 1.
            k = rotate(k, jnp.arange(t + 1), dims=q.shape[-1] // 2)
        # The query's own key is never masked, so no softmax is empty.
        mask = jnp.concatenate([jnp.ones((n, 1), bool), present], axis=1)[:, None, None]
        out = jax.nn.dot_product_attention(q, k, v, mask=mask)
        return self.to_out(out.reshape(n, 1, d))


class Resampler(nnx.Module):
    """Turns a trajectory's vectors over frames into one vector (paper §3.2).

    Raises:
      ValueError: a width that the heads do not divide.
    """

    def __init__(self, width: int, heads: int, depth: int, *, rotary: bool, rngs: nnx.Rngs):
        if width % heads:
            raise ValueError(f"resampler width {width} is not a multiple of {heads} heads")
        self.query = nnx.Param(0.02 * jax.random.normal(rngs.params(), (width,)))
        self.layers = nnx.List(
            [_CrossAttention(width, heads, rotary=rotary, rngs=rngs) for _ in range(depth)]
        )
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)

    def __call__(
        self, frames: Float[Array, "b s t d"], present: Bool[Array, "b s t"]
    ) -> Float[Array, "b s d"]:
        """Summary of each slot's frames; frames where it is not `present` are not seen."""
        b, s, t, d = frames.shape
        flat, seen = frames.reshape(b * s, t, d), present.reshape(b * s, t)
        query = jnp.broadcast_to(self.query[...].astype(frames.dtype), (b * s, 1, d))
        for layer in self.layers:
            query = query + layer(query, flat, seen)
        return self.norm(query).reshape(b, s, d)
