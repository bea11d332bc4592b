"""TokenLearner and TokenFuser (Ryoo et al., NeurIPS 2021), version 1.1 of their authors' code."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.linear import Linear

_EPS = 1e-6  # of all LayerNorms here


class _PatchWeights(nnx.Module):
    """LayerNorm and an MLP: a score of each patch for each token."""

    def __init__(
        self, width: int, tokens: int, bottleneck: int, *, dtype: DTypeLike, rngs: nnx.Rngs
    ):
        shared = {"dtype": dtype, "rngs": rngs}
        self.norm = LayerNorm(width, epsilon=_EPS, **shared)
        self.hidden = Linear(width, bottleneck, **shared)
        self.out = Linear(bottleneck, tokens, **shared)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.out(jax.nn.gelu(self.hidden(self.norm(x)), approximate=True))


class TokenLearner(nnx.Module):
    """Patches -> a few tokens, each a mean of the patches with weights of its own."""

    def __init__(
        self,
        width: int,
        tokens: int,
        bottleneck: int,
        *,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.weigh = _PatchWeights(width, tokens, bottleneck, dtype=dtype, rngs=rngs)

    def __call__(
        self, x: Float[Array, "b cells d"]
    ) -> tuple[Float[Array, "b n d"], Float[Array, "b n cells"]]:
        """Tokens, and how much of each patch is in them: weights of a token sum to one."""
        scores = self.weigh(x).astype(jnp.float32).swapaxes(1, 2)
        weights = jax.nn.softmax(scores, axis=-1)
        return jnp.matmul(weights.astype(x.dtype), x), weights


class TokenFuser(nnx.Module):
    """Tokens -> patches: mixes the tokens, and gives each patch some of each.

    At first it says nothing: as its authors' does, the mix starts at zero.
    """

    def __init__(
        self,
        width: int,
        tokens: int,
        bottleneck: int,
        *,
        normalize: bool = True,
        dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ):
        shared = {"dtype": dtype, "rngs": rngs}
        self.norm_before = LayerNorm(width, epsilon=_EPS, **shared) if normalize else None
        self.mix = Linear(tokens, tokens, kernel_init=nnx.initializers.zeros, **shared)
        self.norm_after = LayerNorm(width, epsilon=_EPS, **shared) if normalize else None
        self.weigh = _PatchWeights(width, tokens, bottleneck, **shared)

    def __call__(
        self, tokens: Float[Array, "b n d"], patches: Float[Array, "b cells d"]
    ) -> Float[Array, "b cells d"]:
        """What the tokens say to each patch.

        Args:
          tokens: as learned, and read by a layer.
          patches: what they were learned from.
        """
        if self.norm_before is not None:
            tokens = self.norm_before(tokens)
        tokens = self.mix(tokens.swapaxes(1, 2)).swapaxes(1, 2)
        if self.norm_after is not None:
            tokens = self.norm_after(tokens)
        share = jax.nn.sigmoid(self.weigh(patches))
        return jnp.matmul(share, tokens)
