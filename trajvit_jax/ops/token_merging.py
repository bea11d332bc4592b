"""Bipartite soft matching: merges the most similar tokens (ToMe: Bolya et al., ICLR 2023).

Tokens at even places each find the most similar one at an odd place, and those that are most
similar to theirs are merged into it: the mean of both, weighted by how many patches are in each.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Int32

from trajvit_jax.ops.ordered_sums import segment_sum


def merge_schedule(depth: int, merged: int, inflection: float = 0.0) -> tuple[int, ...]:
    """Tokens that each layer merges: `merged` on average, changing linearly over the layers.

    Args:
      depth: layers.
      merged: tokens a layer.
      inflection: -1 = from twice as many down to none, 0 = constant, 1 = from none up.
    """
    low = int(merged * (1.0 - inflection))
    step = (2 * merged - 2 * low) / max(depth - 1, 1)
    return tuple(int(low + step * layer) for layer in range(depth))


def can_merge(count: int, *, cls: bool) -> int:
    """How many of `count` tokens can be merged at once: half of those that are not CLS."""
    return (count - cls) // 2


def match_tokens(metric: Float[Array, "b n c"], merged: int, *, cls: bool) -> Int32[Array, "b n"]:
    """The place of each token among the n - merged that are left.

    First come the even tokens that are not merged, with CLS in their order, else those most
    similar to theirs first, as in the authors' code; then all odd ones. No gradient passes.

    Args:
      metric: what similarity is the cosine of.
      merged: how many even tokens are merged.
      cls: token 0 is merged with none.

    Raises:
      ValueError: more tokens than can be merged.
    """
    n = metric.shape[1]
    if not 0 <= merged <= can_merge(n, cls=cls):
        raise ValueError(f"of {n} tokens at most {can_merge(n, cls=cls)} merge, not {merged}")
    metric = jax.lax.stop_gradient(metric.astype(jnp.float32))
    metric = metric / jnp.linalg.norm(metric, axis=-1, keepdims=True)
    even, odd = metric[:, ::2], metric[:, 1::2]
    score = jnp.einsum("bic,bjc->bij", even, odd, precision=jax.lax.Precision.HIGHEST)
    if cls:
        score = score.at[:, 0].set(-jnp.inf)
    best, partner = score.max(-1), score.argmax(-1).astype(jnp.int32)
    order = jnp.argsort(-best, axis=-1)
    kept = order[:, merged:]
    if cls:
        kept = jnp.sort(kept, axis=-1)
    left = kept.shape[1]
    b, count = best.shape
    video = jnp.arange(b)[:, None]
    # Merged ones go to their partner, which stands behind those that are left of the even ones.
    place = (left + partner).at[video, kept].set(jnp.arange(left, dtype=jnp.int32))
    others = jnp.broadcast_to(left + jnp.arange(n - count, dtype=jnp.int32), (b, n - count))
    return jnp.zeros((b, n), jnp.int32).at[:, ::2].set(place).at[:, 1::2].set(others)


def merge_tokens(
    x: Float[Array, "b n d"],
    size: Float[Array, "b n"],
    place: Int[Array, "b n"],
    merged: int,
    *,
    ordered: bool = False,
) -> tuple[Float[Array, "b left d"], Float[Array, "b left"]]:
    """Means of the tokens that share a place, weighted by size, and the sums of their sizes.

    Args:
      x: tokens.
      size: patches that are in each.
      place: as `match_tokens` gives it.
      merged: n - left.
      ordered: sums in an order that is always the same, or, faster, in any.
    """
    left = x.shape[1] - merged

    def sums(values: jax.Array, place: jax.Array) -> jax.Array:
        return segment_sum(values, place, left, ordered=ordered)

    total = jax.vmap(sums)(size, place)
    weighted = jax.vmap(sums)(x.astype(jnp.float32) * size[..., None], place)
    return (weighted / total[..., None]).astype(x.dtype), total


def follow(source: Int[Array, "b m"], place: Int[Array, "b n"]) -> Int[Array, "b m"]:
    """Where patches are after a merge, if they were in the tokens `source` before it."""
    return jnp.take_along_axis(place, source, axis=1)
