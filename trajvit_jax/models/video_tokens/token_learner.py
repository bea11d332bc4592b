"""Tubelets of which a few tokens a time step are learned midway (TokenLearner: Ryoo et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.token_learner import TokenFuser, TokenLearner
from trajvit_jax.models.tokens import Rows, Tokens, no_mask, one_video_a_row
from trajvit_jax.models.transformer import Encoder, Layer, cut, remat_of, unstack
from trajvit_jax.models.video_tokens.tokenizer import single_pass
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens
from trajvit_jax.ops.impl import Impl


class LearnedTokens(TubeletTokens):
    """ViT3D that goes on with a few learned tokens a time step after some of its layers.

    CLS stays as it is beside them. With `token_learner.fuse`, all patches go on, and each later
    layer reads learned tokens and writes them back.

    Raises:
      ValueError: a place before the first layer or behind the last.
    """

    merges = True

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        own, depth = settings.token_learner, settings.encoder.depth
        self.fuse, self.place = own.fuse, round(depth * own.place)
        if not 0 < self.place < depth:
            raise ValueError(
                f"token_learner.place={own.place} is not between two of {depth} layers"
            )
        sizes = (settings.encoder.width, own.tokens, own.bottleneck)
        shared = {"dtype": jnp.dtype(settings.dtype), "rngs": rngs}
        count = depth - self.place if own.fuse else 1
        self.learners = nnx.List([TokenLearner(*sizes, **shared) for _ in range(count)])
        fusers = count if own.fuse else 0
        self.fusers = nnx.List([TokenFuser(*sizes, **shared) for _ in range(fusers)])

    def tokens(
        self,
        features: list[jax.Array],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """The tubelets; they are `labels` of what leaves the encoder with fusers alone."""
        tokens, named = super().tokens(features, video, labels, rows)
        if not self.fuse:
            del named["labels"]
        return tokens, named

    def encode(
        self, encoder: Encoder, tokens: Tokens, videos: int, *, impl: Impl = "fast"
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """States of CLS and the learned tokens, step by step, and their `weights`; or, with
        `token_learner.fuse`, states of all slots."""
        del videos, impl
        single_pass(encoder)
        before, after = cut(encoder.layers, self.place)
        x = encoder.run_layers(before, encoder.read(tokens), no_mask(tokens.values))
        if self.fuse:
            states = encoder.finish(self._fused(encoder, after, x))
            return states, tokens.replace(values=states), {}
        x, weights = self._learn(self.learners[0], x)
        states = encoder.finish(encoder.run_layers(after, x, no_mask(x)))
        left = one_video_a_row(states, jnp.ones(states.shape[:2], bool))
        return states, left, {"weights": self._maps(weights)}

    def _fused(self, encoder: Encoder, layers: Layer | nnx.List, x: jax.Array) -> jax.Array:
        def run(layer: Layer, learner: TokenLearner, fuser: TokenFuser, x: jax.Array) -> jax.Array:
            learned, weights = self._learn(learner, x)
            read = layer(learned, no_mask(learned))
            tokens = read[:, 1:].reshape(-1, weights.shape[2], x.shape[2])
            written = fuser(tokens, _by_step(x, self.cells))
            written = written.reshape(x.shape[0], -1, x.shape[2])
            return jnp.concatenate([read[:, :1], x[:, 1:] + written], axis=1)

        run = remat_of(run, encoder.settings.remat)
        for layer, learner, fuser in zip(unstack(layers), self.learners, self.fusers, strict=True):
            x = run(layer, learner, fuser, x)
        return x

    def _learn(self, learner: TokenLearner, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """CLS and the tokens learned of each time step, and their weights [b, t, n, cells]."""
        learned, weights = learner(_by_step(x, self.cells))
        learned = learned.reshape(x.shape[0], -1, x.shape[2])
        weights = weights.reshape(x.shape[0], -1, *weights.shape[1:])
        return jnp.concatenate([x[:, :1], learned], axis=1), weights

    def _maps(self, weights: Float[Array, "b t n cells"]) -> Float[Array, "b _ t y x"]:
        """Weights over all cells of the clip: a step's tokens have none in the others."""
        b, t, n, _ = weights.shape
        maps = jnp.einsum("btnc,tu->btnuc", weights, jnp.eye(t, dtype=weights.dtype))
        return maps.reshape(b, t * n, t, self.side, self.side)


def _by_step(x: Float[Array, "b n d"], each: int) -> Float[Array, "_ each d"]:
    """CLS and the slots of all time steps -> a row of `each` slots for every step."""
    return x[:, 1:].reshape(-1, each, x.shape[2])
