"""BERT (Devlin et al.): the text side."""

from __future__ import annotations

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from trajvit_jax.models.settings import TextSettings
from trajvit_jax.models.transformer import Layer, run_stack, stack

_EPS = 1e-12


class TextEncoder(nnx.Module):
    """Token ids -> states; the state at slot 0 (CLS) stands for the caption."""

    def __init__(self, settings: TextSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        embed = nnx.initializers.truncated_normal(settings.init_std)
        width = settings.width
        self.word = nnx.Embed(settings.vocabulary, width, embedding_init=embed, rngs=rngs)
        self.position = nnx.Embed(settings.length, width, embedding_init=embed, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=_EPS, rngs=rngs)
        depth = settings.layers_run or settings.depth
        self.layers = stack(
            depth,
            lambda rngs: Layer(
                width,
                settings.heads,
                settings.mlp,
                pre_norm=False,
                eps=_EPS,
                init_std=settings.init_std,
                rngs=rngs,
            ),
            rngs,
        )

    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        """States of all tokens; padding (`mask` False) is never attended to."""
        x = self.word(ids) + self.position(jnp.arange(ids.shape[1]))
        x = self.norm(x)
        return run_stack(self.layers, x, mask[:, None, None], unroll=self.settings.unroll)
