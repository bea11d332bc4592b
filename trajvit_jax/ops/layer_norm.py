"""LayerNorm (Ba et al.) as a formula, and after a linear map without making what it maps to.

With W~ = W - its mean over channels, b~ likewise, the map's output less its mean is f W~ + b~, so
    LN(f W + b) = scale * a (f W~ + b~) + bias,   a = 1 / sqrt(|f W~ + b~|^2 / d + eps),
    |f W~ + b~|^2 = f G f' + 2 f W~ b~ + b~ b~',   G = W~ W~':
one number a vector, for which f W~ is not needed.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from trajvit_jax.ops.impl import EXACT


def at_least_float32(x: Float[Array, "*b"]) -> Float[Array, "*b"]:
    """The same numbers, in float32 where they are in less: a bfloat16 sum of 3,136 ones is 256."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def layer_norm(
    x: Float[Array, "*b d"], scale: Float[Array, " d"], bias: Float[Array, " d"], eps: float
) -> Float[Array, "*b d"]:
    """Normalized over the last axis, at least float32; `eps` is added to the variance."""
    x = at_least_float32(x)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps) * scale + bias


def centre(
    kernel: Float[Array, "c d"], bias: Float[Array, " d"]
) -> tuple[Float[Array, "c d"], Float[Array, " d"]]:
    """The linear map whose outputs have no mean over channels."""
    return kernel - kernel.mean(-1, keepdims=True), bias - bias.mean()


def mapped_factor(
    features: Float[Array, "n c"],
    kernel: Float[Array, "c d"],
    bias: Float[Array, " d"],
    eps: float,
) -> Float[Array, " n"]:
    """LayerNorm's factor a of `features @ kernel + bias`, a map of `centre`.

    Where map and bias nearly cancel, so do the squares: for outputs of a thirtieth of their size,
    float32 leaves a relative error of 1e-4 (1e-6 by way of the outputs themselves).

    Features are rows of a matrix: XLA reduces one ten times as fast on CPU as the same numbers
    in more dimensions.
    """
    gram = jnp.matmul(kernel, kernel.T, precision=EXACT)
    cross = 2 * jnp.matmul(kernel, bias, precision=EXACT)
    square = ((jnp.matmul(features, gram, precision=EXACT) + cross) * features).sum(-1)
    # A difference of large numbers may round below zero.
    variance = jnp.maximum(square + jnp.square(bias).sum(), 0) / len(bias)
    return jax.lax.rsqrt(variance + eps)
