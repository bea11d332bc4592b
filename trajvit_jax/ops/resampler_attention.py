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

from trajvit_jax.ops.impl import EXACT, Impl, check_impl
from trajvit_jax.ops.layer_norm import at_least_float32, centre, layer_norm, mapped_factor
from trajvit_jax.ops.rotary import rotate
from trajvit_jax.ops.wide_gradients import add, product


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
        return add(_apply(features, self.kernel), self.bias)


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
      impl: 'fast' or 'reference': equal up to rounding, which `mapped_factor` says is more where
        lifted features nearly cancel.

    Raises:
      ValueError: an unknown `impl`.
    """
    check_impl(impl)
    if impl == "fast" and queries.shape[:2] == (1, 1):
        return _absorbed(weights, queries[0, 0], frames, present, lift)
    return _general(weights, queries, frames if lift is None else lift(frames), present)


def attention_of_queries(
    weights: CrossAttention,
    queries: Float[Array, "#n q d"],
    frames: Float[Array, "n t d"],
    present: Bool[Array, "n t"],
) -> Float[Array, "n q t"]:
    """How much each query reads of each frame, over all heads, by the plain formula.

    What a query reads of the queries is left out: the sums over frames are less than one.
    """
    alpha, _ = _alpha(weights, queries, frames, present)
    return alpha.mean(1)[..., queries.shape[1] :]


def _apply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`x @ kernel` in the dtype of `x`, for a parameter's [c, d]."""
    flat = product("nc,cd->nd", x.reshape(-1, x.shape[-1]), kernel, precision=EXACT)
    return flat.reshape(*x.shape[:-1], kernel.shape[-1])


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision=EXACT)


def _alpha(
    weights: CrossAttention, queries: jax.Array, frames: jax.Array, present: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Attention [n, heads, q, q + t] to queries and frames, and what keys are made of."""
    n, t, d = frames.shape
    count, width = queries.shape[1], d // weights.heads
    queries = add(jnp.zeros((n, count, d), frames.dtype), queries)
    normed = layer_norm(frames, weights.norm_scale, weights.norm_bias, weights.eps)
    inputs = jnp.concatenate([queries, normed.astype(frames.dtype)], axis=1)

    def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return _apply(x, kernel).reshape(*x.shape[:2], weights.heads, width)

    q, k = project(queries, weights.query), project(inputs, weights.key)
    if weights.rotary:
        q = rotate(q, jnp.arange(count), dims=width // 2)
        k = rotate(k, jnp.arange(count + t), dims=width // 2)
    # The queries' own keys are never masked, so no softmax is empty.
    seen = jnp.concatenate([jnp.ones((n, count), bool), present], axis=1)[:, None, None]
    wide = jnp.promote_types(q.dtype, jnp.float32)
    scores = jnp.einsum("nqhe,nkhe->nhqk", q, k, precision=EXACT, preferred_element_type=wide)
    scores = jnp.where(seen, scores * width**-0.5, -jnp.inf)
    return jax.nn.softmax(scores, axis=-1), inputs


def _general(
    weights: CrossAttention, queries: jax.Array, frames: jax.Array, present: jax.Array
) -> jax.Array:
    alpha, inputs = _alpha(weights, queries, frames, present)
    v = _apply(inputs, weights.value)
    # Sizes are all named: there may be no frames at all.
    v = v.reshape(*v.shape[:2], weights.heads, v.shape[2] // weights.heads)
    out = jnp.einsum("nhqk,nkhe->nqhe", alpha.astype(v.dtype), v, precision=EXACT)
    return _apply(out.reshape(*out.shape[:2], len(weights.out)), weights.out)


def _absorbed(
    weights: CrossAttention,
    query: jax.Array,
    frames: jax.Array,
    present: jax.Array,
    lift: Lift | None,
) -> jax.Array:
    n, t, c = frames.shape
    dtype, heads, d = frames.dtype, weights.heads, len(query)
    width = d // heads
    query = at_least_float32(query)

    # u_t of the module's formula, and u_0 of the query's own key, which nothing turns.
    key = weights.key.reshape(d, heads, width)
    q = _product(query, weights.query).reshape(heads, width) * width**-0.5
    turned = jnp.broadcast_to(q, (t + 1, heads, width))
    if weights.rotary:
        # The transpose of a rotation turns back.
        turned = rotate(turned, -jnp.arange(t + 1), dims=width // 2)
    u = jnp.einsum("dhe,the->tdh", key, turned, precision=EXACT)
    own, u = _product(query, u[0]), u[1:]

    # LN(x) = scale * factor * (inputs basis) + bias, where the basis may be the identity.
    if lift is None:
        vectors, basis = at_least_float32(frames), None
        mean = vectors.mean(-1, keepdims=True)
        factor = jax.lax.rsqrt(jnp.square(vectors - mean).mean(-1) + weights.eps)
        # Where numbers are narrow a mean takes the digits of what differs, and frames are centred.
        # Else what they meet is: a copy less.
        is_narrow = dtype != vectors.dtype
        inputs = (vectors - mean).astype(dtype) if is_narrow else frames
    else:
        kernel, bias = centre(lift.kernel, lift.bias)
        flat = at_least_float32(frames).reshape(-1, c)
        factor = mapped_factor(flat, kernel, bias, weights.eps).reshape(n, t)
        # The bias is the map of a feature more, which is always one.
        inputs = jnp.concatenate([frames, jnp.ones((n, t, 1), dtype)], axis=-1)
        basis = jnp.concatenate([kernel, bias[None]])

    scaled = weights.norm_scale[:, None] * u
    if basis is not None:
        scaled = _product(basis, scaled)
    elif not is_narrow:
        scaled = scaled - scaled.mean(-2, keepdims=True)
    # Frames come first: XLA has no narrow products on CPU with batches of another axis.
    scores = jnp.einsum(
        "tnc,tch->tnh",
        inputs.swapaxes(0, 1),
        scaled.astype(dtype),
        precision=EXACT,
        preferred_element_type=factor.dtype,
    )
    scores = scores.transpose(1, 2, 0) * factor[:, None] + _product(weights.norm_bias, u).T
    scores = jnp.where(present[:, None], scores, -jnp.inf)
    own = jnp.broadcast_to(own.astype(scores.dtype)[:, None], (n, heads, 1))
    alpha = jax.nn.softmax(jnp.concatenate([own, scores], -1), axis=-1)
    on_query, alpha = alpha[..., :1], alpha[..., 1:]

    # Query, bias and frames are added up before the values, so that one product a head, over all
    # trajectories, makes the values of them all, and no part of the weights is copied for another.
    shares, on_bias = (alpha * factor[:, None]).astype(dtype), alpha.sum(-1, keepdims=True)
    mixed, values = _product(shares, inputs), weights.value
    if basis is None:
        if not is_narrow:
            mixed = mixed - _product(shares, mean)
        mixed = mixed * weights.norm_scale + on_bias * weights.norm_bias + on_query * query
    else:
        values = _product(
            jnp.concatenate([basis * weights.norm_scale, weights.norm_bias[None], query[None]]),
            values,
        )
        mixed = jnp.concatenate([mixed, on_bias, on_query], axis=-1)
    values = values.reshape(-1, heads, width).swapaxes(0, 1)
    mixed = mixed.astype(dtype).swapaxes(0, 1)
    out = product("hnc,hcw->hnw", mixed, values, precision=EXACT).swapaxes(0, 1)
    return _apply(out.reshape(n, 1, d), weights.out)
