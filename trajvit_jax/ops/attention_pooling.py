"""Attention of one learned query over a video's tokens, which pools them (Zhai et al., MAP head).

'reference' projects a key and a value for every token.

'fast' projects none. The query is the same for all tokens, so a head's scores are products with
one vector, and values can be summed before they are projected:
    score_t = (K x_t + k) . q = x_t . (K' q) + k . q,   the last lost in the softmax,
    out = sum_t alpha_t (V x_t + v) = V (sum_t alpha_t x_t) + v
so a token costs two vectors a head: at width 384 and 6 heads a sixty-fourth of its projections.
"""

from __future__ import annotations

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from trajvit_jax.ops.impl import EXACT, Impl, check_impl


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class PoolingWeights:
    """Weights of one cross-attention with biases.

    Attributes:
      query: [d], what is learned in place of a token.
      kernels: of query, key, value and output, [4, d, d].
      biases: likewise, [4, d].
      heads: of d / heads dims each.
    """

    query: Float[Array, " d"]
    kernels: Float[Array, "4 d d"]
    biases: Float[Array, "4 d"]
    heads: int = struct.field(pytree_node=False)


def pool_tokens(
    weights: PoolingWeights,
    tokens: Float[Array, "b n d"],
    used: Bool[Array, "b n"],
    *,
    impl: Impl = "fast",
) -> Float[Array, "b d"]:
    """What the query reads of each row of tokens.

    Args:
      weights: of the attention.
      tokens: of each row.
      used: tokens that are seen; at least one of a row.
      impl: 'fast' or 'reference': equal up to rounding.

    Raises:
      ValueError: an unknown `impl`.
    """
    check_impl(impl)
    heads, d = weights.heads, len(weights.query)
    to_query, to_key, to_value, to_out = weights.kernels
    for_query, for_key, for_value, for_out = weights.biases
    query = _product(weights.query, to_query) + for_query
    query = query.reshape(heads, -1) * (d // heads) ** -0.5
    if impl == "reference":
        keys = (_product(tokens, to_key) + for_key).reshape(*tokens.shape[:2], heads, -1)
        values = (_product(tokens, to_value) + for_value).reshape(*tokens.shape[:2], heads, -1)
        scores = jnp.einsum("bnhe,he->bhn", keys, query, precision=EXACT)
        alpha = jax.nn.softmax(jnp.where(used[:, None], scores, -jnp.inf), axis=-1)
        mixed = jnp.einsum("bhn,bnhe->bhe", alpha, values, precision=EXACT)
    else:
        turned = jnp.einsum("dhe,he->dh", to_key.reshape(d, heads, -1), query, precision=EXACT)
        summed = _mix(turned, tokens, used)
        by_head = to_value.reshape(d, heads, -1)
        mixed = jnp.einsum("bhd,dhe->bhe", summed, by_head, precision=EXACT)
        mixed = mixed + for_value.reshape(heads, -1)
    return _product(mixed.reshape(len(tokens), d), to_out) + for_out


def _product(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.matmul(x, kernel, precision=EXACT)


@jax.custom_vjp
def _mix(
    turned: Float[Array, "d h"], tokens: Float[Array, "b n d"], used: Bool[Array, "b n"]
) -> Float[Array, "b h d"]:
    """Each head's mean of the tokens, weighed by the softmax of their products with one vector.

    Its gradient is written out: every pass over the tokens, forward and back, is a product in the
    order that a CPU does fast, where the derived ones take several times as long.
    """
    return _mixed(turned, tokens, used)[0]


def _mixed(
    turned: jax.Array, tokens: jax.Array, used: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    b, n, d = tokens.shape
    scores = _product(tokens.reshape(b * n, d), turned).reshape(b, n, -1)
    # The token axis last: a softmax over the middle one is slow on CPU.
    scores = jnp.where(used[:, None], scores.swapaxes(1, 2), -jnp.inf)
    alpha = jax.nn.softmax(scores, axis=-1)
    return _sum_by_head(alpha, tokens), (turned, tokens, alpha)


def _mixed_back(
    kept: tuple[jax.Array, jax.Array, jax.Array], g: Float[Array, "b h d"]
) -> tuple[jax.Array, jax.Array, None]:
    turned, tokens, alpha = kept
    to_alpha = jnp.einsum("bnd,bhd->bnh", tokens, g, precision=EXACT).swapaxes(1, 2)
    to_scores = alpha * (to_alpha - (alpha * to_alpha).sum(-1, keepdims=True))
    to_turned = _sum_by_head(to_scores, tokens).sum(0).T
    to_tokens = jnp.einsum("bhn,bhd->bnd", alpha, g, precision=EXACT)
    to_tokens += jnp.einsum("bhn,dh->bnd", to_scores, turned, precision=EXACT)
    return to_turned, to_tokens, None


def _sum_by_head(weights: Float[Array, "b h n"], tokens: Float[Array, "b n d"]) -> jax.Array:
    return jnp.einsum("bhn,bnd->bhd", weights, tokens, precision=EXACT)


_mix.defvjp(_mixed, _mixed_back)
