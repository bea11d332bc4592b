"""Attention of a trajectory's queries over its frames (Perceiver: Jaegle et al.; Flamingo).

Keys are the queries themselves, never masked, and the layer-normalized vectors of the frames
where the trajectory is present. `attend_frames` computes it two ways that are equal:

'reference' normalizes every frame, and projects a key and a value for it.

'fast' does neither where one query is shared by all trajectories, as in a first layer it is.
With x_t the frame's vector, a_t and m_t its LayerNorm's factor and mean, g and b scale and bias:
    score_t = (R_t K LN(x_t)) . q = a_t (x_t - m_t) . (g u_t) + b . u_t,   u_t = K' R_t' q
    out = sum_t alpha_t V LN(x_t) = V g (sum_t alpha_t a_t (x_t - m_t)) + V b sum_t alpha_t
so a frame costs one d-vector a head, and a trajectory one product with V. Where frames are a
linear map of c < d features (`Lift`), all of it happens in c dims: x_t is never made either.
Several queries, and later layers, whose queries differ by trajectory, take the general form.
"""

from __future__ import annotations

from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float

from trajvit_jax.ops.impl import Impl, check_impl
from trajvit_jax.ops.layer_norm import at_least_float32, centre, layer_norm, mapped_factor
from trajvit_jax.ops.rotary import rotate


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class CrossAttention:
    """Weights of one cross-attention, without biases, and of the LayerNorm before it.

    Attributes:
      query: [d, d].
      key: [d, d].
      value: [d, d].
      out: [d, d].
      norm_scale: [d], of the frames' LayerNorm.
      norm_bias: [d].
      heads: of d / heads dims each.
      rotary: whether half of each head is turned by its position: a query (as query and as
        key) stands at its number from 0, the frames follow.
      eps: the LayerNorm's, added to the variance.
    """

    query: Float[Array, "d d"]
    key: Float[Array, "d d"]
    value: Float[Array, "d d"]
    out: Float[Array, "d d"]
    norm_scale: Float[Array, " d"]
    norm_bias: Float[Array, " d"]
    heads: int = struct.field(pytree_node=False)
    rotary: bool = struct.field(pytree_node=False, default=True)
    eps: float = struct.field(pytree_node=False, default=1e-5)


@no_type_check
@struct.dataclass
class Lift:
    """The linear map that makes a frame's vector of its features.

    Attributes:
      kernel: [c, d].
      bias: [d].
    """

    kernel: Float[Array, "c d"]
    bias: Float[Array, " d"]

    def __call__(self, features: Float[Array, "*b c"]) -> Float[Array, "*b d"]:
        """The vectors, in the features' dtype."""
        return features @ self.kernel.astype(features.dtype) + self.bias.astype(features.dtype)


def attend_frames(
    weights: CrossAttention,
    queries: Float[Array, "#n q d"],
    frames: Float[Array, "n t c"],
    present: Bool[Array, "n t"],
    *,
    lift: Lift | None = None,
    impl: Impl = "fast",
) -> Float[Array, "n q d"]:
    """What each query reads from its trajectory's frames.

    Args:
      weights: the projections, and the frames' LayerNorm.
      queries: normalized; a leading 1 where all trajectories share them.
      frames: vectors of d channels, or with `lift` the features that they are made of.
      present: frames that are seen. Where there are none, a query reads the queries alone.
      lift: makes the vectors; None = `frames` are the vectors.
      impl: 'fast' or 'reference': equal up to rounding.

    Raises:
      ValueError: an unknown `impl`.
    """
    check_impl(impl)
    if impl == "fast" and queries.shape[:2] == (1, 1):
        return _absorbed(weights, queries[0, 0], frames, present, lift)
    return _general(weights, queries, frames if lift is None else lift(frames), present)


def _general(
    weights: CrossAttention, queries: jax.Array, frames: jax.Array, present: jax.Array
) -> jax.Array:
    n, t, d = frames.shape
    count, width = queries.shape[1], d // weights.heads
    queries = jnp.broadcast_to(queries, (n, count, d))
    normed = layer_norm(frames, weights.norm_scale, weights.norm_bias, weights.eps)
    inputs = jnp.concatenate([queries, normed.astype(frames.dtype)], axis=1)

    def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (x @ kernel.astype(x.dtype)).reshape(*x.shape[:2], weights.heads, width)

    q, k = project(queries, weights.query), project(inputs, weights.key)
    v = project(inputs, weights.value)
    if weights.rotary:
        q = rotate(q, jnp.arange(count), dims=width // 2)
        k = rotate(k, jnp.arange(count + t), dims=width // 2)
    # The queries' own keys are never masked, so no softmax is empty.
    seen = jnp.concatenate([jnp.ones((n, count), bool), present], axis=1)[:, None, None]
    scores = jnp.einsum("nqhe,nkhe->nhqk", q, k, preferred_element_type=_wide(q))
    scores = jnp.where(seen, scores * width**-0.5, -jnp.inf)
    alpha = jax.nn.softmax(scores, axis=-1).astype(v.dtype)
    out = jnp.einsum("nhqk,nkhe->nqhe", alpha, v)
    return out.reshape(n, count, d) @ weights.out.astype(out.dtype)


def _absorbed(
    weights: CrossAttention,
    query: jax.Array,
    frames: jax.Array,
    present: jax.Array,
    lift: Lift | None,
) -> jax.Array:
    n, t, c = frames.shape
    dtype, wide = frames.dtype, _wide(frames)
    heads, d = weights.heads, len(query)
    width = d // heads
    query = query.astype(wide)

    # u_t of the module's formula; position 0 turns nothing, neither the query nor its own key.
    key = weights.key.reshape(d, heads, width)
    q = (query @ weights.query).reshape(heads, width) * width**-0.5
    own = jnp.einsum("d,dhe,he->h", query, key, q)
    turned = jnp.broadcast_to(q, (t, heads, width))
    if weights.rotary:
        # The transpose of a rotation turns back.
        turned = rotate(turned, -jnp.arange(1, t + 1), dims=width // 2)
    u = jnp.einsum("dhe,the->tdh", key, turned)

    # LN(x) = scale * (factor * (features A) + shift * s) + bias, s the same for all frames.
    if lift is None:
        factor, shift = _moments(at_least_float32(frames), weights.eps)
        basis, offset = None, jnp.ones((d,), wide)
    else:
        basis, offset = centre(lift.kernel, lift.bias)
        flat = at_least_float32(frames).reshape(-1, c)
        factor = mapped_factor(flat, basis, offset, weights.eps).reshape(n, t)
        shift = factor

    def narrow(x: jax.Array) -> jax.Array:
        """[..., d, k] in the dims of the features."""
        return x if basis is None else jnp.matmul(basis, x)

    scaled = weights.norm_scale[:, None] * u
    scores = jnp.einsum(
        "ntc,tch->nht", frames, narrow(scaled).astype(dtype), preferred_element_type=wide
    )
    scores = scores * factor[:, None] + shift[:, None] * (offset @ scaled).T
    scores = scores + (weights.norm_bias @ u).T
    scores = jnp.where(present[:, None], scores, -jnp.inf)
    own = jnp.broadcast_to(own.astype(scores.dtype)[:, None], (n, heads, 1))
    alpha = jax.nn.softmax(jnp.concatenate([own, scores], -1), axis=-1)
    on_query, alpha = alpha[..., :1], alpha[..., 1:]

    # One product a head, over all trajectories; what is the same for all is projected once.
    value = weights.value.reshape(d, heads, width).swapaxes(0, 1)
    scaled = weights.norm_scale[:, None] * value
    mixed = jnp.matmul((alpha * factor[:, None]).astype(dtype), frames)
    out = jnp.matmul(mixed.swapaxes(0, 1), narrow(scaled).astype(dtype)).swapaxes(0, 1)
    out = out + (alpha * shift[:, None]).sum(-1, keepdims=True) * (offset @ scaled)
    out = out + alpha.sum(-1, keepdims=True) * (weights.norm_bias @ value)
    out = out + on_query * (query @ value)
    return out.astype(dtype).reshape(n, 1, d) @ weights.out.astype(dtype)


def _moments(x: jax.Array, eps: float) -> tuple[jax.Array, jax.Array]:
    """LayerNorm's factor of each vector, and minus its mean times that."""
    mean = x.mean(-1)
    factor = jax.lax.rsqrt(jnp.square(x - mean[..., None]).mean(-1) + eps)
    return factor, -mean * factor


def _wide(x: jax.Array) -> jnp.dtype:
    """What scores are summed in."""
    return jnp.promote_types(x.dtype, jnp.float32)
