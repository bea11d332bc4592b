"""Tubelets read in two stages, in space and then in time (ViViT, model 2: Arnab et al.)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Tokens, no_mask, one_video_a_row
from trajvit_jax.models.transformer import Encoder, cut
from trajvit_jax.models.video_tokens.tokenizer import single_pass
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens
from trajvit_jax.ops.impl import Impl
from trajvit_jax.ops.interpolation import resize_linear
from trajvit_jax.ops.wide_gradients import add


class FactorizedTokens(TubeletTokens):
    """ViT3D's tubelets, and an encoder in two parts of the same layers.

    The first part reads the patches of each time step by themselves, with a CLS of their own;
    the second these CLS states, one a step, with another CLS, which is the video's.

    Raises:
      ValueError: no layer for one of the parts.
    """

    merges = True

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        super().__init__(settings, rngs=rngs)
        own, width, depth = settings.vivit, settings.encoder.width, settings.encoder.depth
        self.spatial_depth = depth - (own.temporal_depth or depth // 2)
        if not 0 < self.spatial_depth < depth:
            raise ValueError(
                f"vivit.temporal_depth={own.temporal_depth} of {depth} layers leaves none for "
                "space or none for time"
            )
        eps, dtype = settings.encoder.layer_norm_eps, jnp.dtype(settings.dtype)
        shared = {"epsilon": eps, "dtype": dtype, "rngs": rngs}
        std = settings.encoder.init_std
        pixels = 3 * self.tubelet * self.patch**2
        self.norm_pixels = LayerNorm(pixels, **shared) if own.embed_norm else None
        self.norm_patches = LayerNorm(width, **shared) if own.embed_norm else None
        of_steps = None
        if own.positions == "factorized":
            self.position = nnx.Param(self.position[: self.cells])
            steps = settings.frames // self.tubelet
            of_steps = nnx.Param(std * jax.random.normal(rngs.params(), (steps, width)))
        self.step_position = of_steps
        self.norm_spatial = LayerNorm(width, **shared)
        self.step_cls = nnx.Param(std * jax.random.normal(rngs.params(), (width,)))

    def positions(self, steps: int) -> Float[Array, "n d"]:
        """The table of all tubelets; or that of a step's patches, the same for each step."""
        if self.step_position is None:
            return super().positions(steps)
        return jnp.tile(self.position[...], (steps, 1))

    def embed_blocks(self, blocks: Float[Array, "b n _"]) -> Float[Array, "b n d"]:
        """Tubelets' pixels -> tokens without position."""
        if self.norm_pixels is None or self.norm_patches is None:
            return self.embed(blocks)
        return self.norm_patches(self.embed(self.norm_pixels(blocks)))

    def encode(
        self, encoder: Encoder, tokens: Tokens, videos: int, *, impl: Impl = "fast"
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """States of CLS and the time steps; by name `spatial` [b, n, d], of all tubelets.

        `labels` number the tubelets of `spatial`: in the states, a step's share a slot.
        """
        del videos, impl
        single_pass(encoder)
        space, time = cut(encoder.layers, self.spatial_depth)
        b, _, d = tokens.values.shape
        patches = tokens.values[:, 1:].reshape(-1, self.cells, d).astype(encoder.dtype)
        x = _with_cls(encoder.cls[...], patches)
        x = self.norm_spatial(encoder.run_layers(space, x, no_mask(x)))
        steps = x[:, 0].reshape(b, -1, d)
        if self.step_position is not None:
            steps = add(steps, self._step_positions(steps.shape[1]))
        steps = _with_cls(self.step_cls[...], steps)
        states = encoder.finish(encoder.run_layers(time, steps, no_mask(steps)))
        left = one_video_a_row(states, jnp.ones(states.shape[:2], bool))
        return states, left, {"spatial": x[:, 1:].reshape(b, -1, d)}

    def _step_positions(self, steps: int) -> jax.Array:
        assert self.step_position is not None
        table = self.step_position[...]
        return resize_linear(table, steps) if steps > len(table) else table[:steps]


def _with_cls(cls: jax.Array, x: Float[Array, "b n d"]) -> Float[Array, "b s d"]:
    first = add(jnp.zeros_like(x[:, :1]), cls)
    return jnp.concatenate([first, x], axis=1)
