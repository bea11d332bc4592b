"""A classifier of frozen tokens: multi-head attention pooling (Zhai et al. 2022), and a linear map.

One learned query attends to all tokens of a video; what it reads goes through a residual MLP, as
in a transformer layer, and to the classes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.ops.attention_pooling import PoolingWeights, pool_tokens
from trajvit_jax.ops.impl import Impl


class MapHead(nnx.Module):
    """Tokens -> a score for each class.

    Raises:
      ValueError: a width that the heads do not divide.
    """

    def __init__(
        self, width: int, classes: int, *, heads: int, mlp_ratio: float = 4.0, rngs: nnx.Rngs
    ):
        """Args: of the tokens, of the classifier, of the attention; 0 = no MLP; the start."""
        if width % heads:
            raise ValueError(f"{heads} heads do not divide tokens of width {width}")
        self.heads = heads
        self.query = nnx.Param(nnx.initializers.xavier_uniform()(rngs.params(), (1, width))[0])
        kernel = nnx.initializers.xavier_uniform(in_axis=1, out_axis=2, batch_axis=0)
        self.kernels = nnx.Param(kernel(rngs.params(), (4, width, width)))
        self.biases = nnx.Param(jnp.zeros((4, width)))
        inner = round(width * mlp_ratio)
        self.norm = LayerNorm(width, epsilon=1e-6, rngs=rngs) if inner else None
        self.mlp_in = nnx.Linear(width, inner, rngs=rngs) if inner else None
        self.mlp_out = nnx.Linear(inner, width, rngs=rngs) if inner else None
        self.classify = nnx.Linear(width, classes, rngs=rngs)

    def weights(self) -> PoolingWeights:
        """Of the attention."""
        return PoolingWeights(
            self.query[...], self.kernels[...], self.biases[...], heads=self.heads
        )

    def __call__(
        self, tokens: Float[Array, "b n d"], used: Bool[Array, "b n"], *, impl: Impl = "fast"
    ) -> Float[Array, "b classes"]:
        """Scores before any softmax; tokens that are not `used` change nothing."""
        x = pool_tokens(self.weights(), tokens, used, impl=impl)
        if self.norm is not None and self.mlp_in is not None and self.mlp_out is not None:
            x = x + self.mlp_out(jax.nn.gelu(self.mlp_in(self.norm(x)), approximate=False))
        return self.classify(x)
