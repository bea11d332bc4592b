"""Tubelets that merge with similar ones between the encoder's layers (ToMe: Bolya et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.models.settings import ModelSettings, ToMeSettings
from trajvit_jax.models.tokens import Tokens, one_video_a_row
from trajvit_jax.models.transformer import Encoder, Layer, remat_of, unstack
from trajvit_jax.models.video_tokens.tokenizer import single_pass
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens
from trajvit_jax.ops.impl import Impl
from trajvit_jax.ops.mesh import keep_sharded
from trajvit_jax.ops.token_merging import (
    can_merge,
    follow,
    match_tokens,
    merge_schedule,
    merge_tokens,
)


def merging_layer(
    layer: Layer,
    x: Float[Array, "b n d"],
    size: Float[Array, "b n"],
    merged: int,
    *,
    weigh: bool,
    cls: bool = True,
    ordered: bool = False,
) -> tuple[Float[Array, "b left d"], Float[Array, "b left"], jax.Array]:
    """A pre-norm layer that merges tokens between attention and MLP.

    Args:
      layer: whose keys, averaged over heads, tell how similar tokens are.
      x: tokens.
      size: patches that are in each.
      merged: how many tokens are merged into others.
      weigh: attention counts a token as often as patches are in it.
      cls: token 0 is merged with none.
      ordered: merged tokens are added up in an order that is always the same.

    Returns:
      The tokens that are left, their sizes, and the place of each old token among them.
    """
    bias = jnp.log(size)[:, None, None] if weigh else None
    x, keys = layer.attend_with_keys(x, bias)
    if not merged:
        place = jnp.broadcast_to(jnp.arange(x.shape[1], dtype=jnp.int32), x.shape[:2])
        return layer.think(x), size, place
    place = match_tokens(keys.mean(2), merged, cls=cls)
    x, size = merge_tokens(x, size, place, merged, ordered=ordered)
    return layer.think(x), size, place


def tokens_by_layer(count: int, depth: int, settings: ToMeSettings) -> list[int]:
    """How many tokens, CLS included, are left behind each layer, of `count` before the first."""
    left = []
    for merged in merge_schedule(depth, settings.merged, settings.inflection):
        count -= min(merged, can_merge(count, cls=True))
        left.append(count)
    return left


class MergedTokens(TubeletTokens):
    """ViT3D whose layers each merge the same number of tokens into similar ones."""

    merges = True

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        self.settings, self.ordered = settings.tome, settings.deterministic

    def encode(
        self, encoder: Encoder, tokens: Tokens, videos: int, *, impl: Impl = "fast"
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """States of the tokens that are left, `labels`, and `sizes` [b, s]: patches in each."""
        del videos, impl
        single_pass(encoder)
        x = keep_sharded(encoder.read(tokens))
        b, n, _ = x.shape
        depth = encoder.settings.depth
        left = tokens_by_layer(n, depth, self.settings)

        def run(
            layer: Layer, x: jax.Array, size: jax.Array, merged: int
        ) -> tuple[jax.Array, jax.Array, jax.Array]:
            weigh = self.settings.weigh
            return merging_layer(layer, x, size, merged, weigh=weigh, ordered=self.ordered)

        run = remat_of(run, encoder.settings.remat, static=3)
        size = jnp.ones((b, n), jnp.float32)
        source = jnp.broadcast_to(jnp.arange(n, dtype=jnp.int32), (b, n))
        for layer, after in zip(unstack(encoder.layers), left, strict=True):
            x, size, place = run(layer, x, size, x.shape[1] - after)
            source = follow(source, place)
        states = encoder.finish(x)
        merged = one_video_a_row(states, jnp.ones(states.shape[:2], bool))
        labels = source[:, 1:].reshape(b, -1, self.side, self.side)
        return states, merged, {"labels": labels, "sizes": size}
