"""The next token: the likeliest one, or one drawn by temperature and top-p."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key


def next_tokens(
    logits: Float32[Array, "b v"],
    keys: Key[Array, " b"],
    temperature: Float32[Array, ""],
    top_p: Float32[Array, ""],
) -> Int32[Array, " b"]:
    """One token a row; of equally likely ones the first.

    Args:
      logits: of the next token.
      keys: a row's own: what it draws depends on no other row.
      temperature: 0 = the likeliest token.
      top_p: nucleus sampling (Holtzman et al.): draws among the likeliest tokens, as few of them
        as together have this probability, at least one.
    """
    greedy = logits.argmax(-1).astype(jnp.int32)

    def draw() -> Int32[Array, " b"]:
        scaled = logits / jnp.maximum(temperature, 1e-6)
        order = jnp.argsort(-scaled, axis=-1)
        ordered = jnp.take_along_axis(scaled, order, -1)
        probability = jax.nn.softmax(ordered, -1)
        # What stands before a token: where that is enough already, the token is none of them.
        before = jnp.cumsum(probability, -1) - probability
        kept = jnp.where((before < top_p).at[:, 0].set(True), ordered, -jnp.inf)
        drawn = jax.vmap(jax.random.categorical)(keys, kept)
        return jnp.take_along_axis(order, drawn[:, None], -1)[:, 0].astype(jnp.int32)

    # Sorting a vocabulary takes longer than reading it: only where something is drawn.
    return jax.lax.cond(temperature > 0, draw, lambda: greedy)
