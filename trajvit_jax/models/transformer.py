"""Transformer layers, stacked and scanned: the video encoder's and BERT's."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.tokens import Tokens, same_video


class Layer(nnx.Module):
    """Self-attention and MLP; `pre_norm` normalizes before each (ViT), else after (BERT)."""

    def __init__(
        self,
        width: int,
        heads: int,
        mlp: int,
        *,
        pre_norm: bool,
        eps: float,
        init_std: float,
        rngs: nnx.Rngs,
    ):
        self.heads, self.pre_norm = heads, pre_norm
        init = nnx.initializers.truncated_normal(init_std)
        self.norm_attention = nnx.LayerNorm(width, epsilon=eps, rngs=rngs)
        self.norm_mlp = nnx.LayerNorm(width, epsilon=eps, rngs=rngs)
        self.query_key_value = nnx.Linear(width, 3 * width, kernel_init=init, rngs=rngs)
        self.attention_out = nnx.Linear(width, width, kernel_init=init, rngs=rngs)
        self.mlp_in = nnx.Linear(width, mlp, kernel_init=init, rngs=rngs)
        self.mlp_out = nnx.Linear(mlp, width, kernel_init=init, rngs=rngs)

    def _attend(self, x: jax.Array, mask: jax.Array) -> jax.Array:
        b, n, d = x.shape
        q, k, v = (
            part.reshape(b, n, self.heads, -1)
            for part in jnp.split(self.query_key_value(x), 3, axis=-1)
        )
        out = jax.nn.dot_product_attention(q, k, v, mask=mask)
        return self.attention_out(out.reshape(b, n, d))

    def _mlp(self, x: jax.Array) -> jax.Array:
        return self.mlp_out(jax.nn.gelu(self.mlp_in(x), approximate=False))

    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b 1 #n n"]
    ) -> Float[Array, "b n d"]:
        """One layer; `mask` says which slots (last axis) each slot sees."""
        if self.pre_norm:
            x = x + self._attend(self.norm_attention(x), mask)
            return x + self._mlp(self.norm_mlp(x))
        x = self.norm_attention(x + self._attend(x, mask))
        return self.norm_mlp(x + self._mlp(x))


def stack(depth: int, make: Callable[[nnx.Rngs], Layer], rngs: nnx.Rngs) -> Layer:
    """`depth` layers as one, every parameter with a leading layer axis."""

    @nnx.split_rngs(splits=depth)
    @nnx.vmap(in_axes=0, out_axes=0)
    def build(rngs: nnx.Rngs) -> Layer:
        return make(rngs)

    return build(rngs)


def run_stack(
    layers: Layer, x: jax.Array, mask: jax.Array, *, remat: bool = False, unroll: int = 1
) -> jax.Array:
    """Runs stacked layers in order."""

    def step(x: jax.Array, layer: Layer) -> jax.Array:
        return layer(x, mask)

    body = nnx.remat(step) if remat else step
    return nnx.scan(body, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry, unroll=unroll)(x, layers)


class Encoder(nnx.Module):
    """Pre-norm ViT without position embeddings: tokens carry their own (paper §3.2)."""

    def __init__(self, settings: EncoderSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.cls = nnx.Param(
            settings.init_std * jax.random.normal(rngs.params(), (settings.width,))
        )
        self.layers = stack(
            settings.depth,
            lambda rngs: Layer(
                settings.width,
                settings.heads,
                settings.mlp,
                pre_norm=True,
                eps=settings.layer_norm_eps,
                init_std=settings.init_std,
                rngs=rngs,
            ),
            rngs,
        )
        self.norm = (
            nnx.LayerNorm(settings.width, epsilon=settings.layer_norm_eps, rngs=rngs)
            if settings.final_norm
            else None
        )

    def __call__(self, tokens: Tokens) -> Float[Array, "r s d"]:
        """States of all slots; those of empty slots mean nothing and reach no other."""
        is_cls = (tokens.query == 0) & (tokens.video > 0)
        cls = self.cls[...].astype(tokens.values.dtype)
        x = jnp.where(is_cls[..., None], cls, tokens.values)
        x = run_stack(
            self.layers,
            x,
            same_video(tokens),
            remat=self.settings.remat,
            unroll=self.settings.unroll,
        )
        return x if self.norm is None else self.norm(x)
