"""Trajectory tokens: one per object part followed through time (paper §3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from trajvit_jax.models.resampler import Resampler
from trajvit_jax.models.resnet import ResNet
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Tokens, one_video_a_row
from trajvit_jax.ops.interpolation import resize_bilinear
from trajvit_jax.ops.mask_pooling import areas, boxes, pool_masks

BOX_FEATURES = 64


def box_features(box: Float[Array, "*b 4"]) -> Float[Array, "*b 64"]:
    """Sine and cosine of each coordinate at 8 frequencies (paper, Table 8).

    Angles are 224 * x * 10000^(-k/8): for x in [0, 1] alone, base 10000 would leave most
    frequencies nearly constant.
    """
    frequency = 224.0 * 10_000.0 ** (-jnp.arange(8, dtype=jnp.float32) / 8)
    angle = box[..., None] * frequency
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    return features.reshape(*box.shape[:-1], BOX_FEATURES)


class TrajectoryTokens(nnx.Module):
    """Video and label maps -> one token a trajectory: appearance + position."""

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        own, encoder = settings.trajvit, settings.encoder
        self.slots = own.max_trajectories + 1
        width = own.feature_width or encoder.width
        self.resnet = ResNet(own.resnet, rngs=rngs)
        self.project = nnx.List(
            [nnx.Linear(channels, width, rngs=rngs) for channels in own.resnet.widths]
        )
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.widen = None if width == encoder.width else nnx.Linear(width, encoder.width, rngs=rngs)
        self.from_box = nnx.Linear(BOX_FEATURES, encoder.width, rngs=rngs)
        resampler = (encoder.width, encoder.heads, own.resampler_depth)
        self.appearance = Resampler(*resampler, rotary=own.rotary, rngs=rngs)
        self.position = Resampler(*resampler, rotary=own.rotary, rngs=rngs)

    def feature_map(
        self, video: Float[Array, "b t h w 3"], grid: tuple[int, int], *, train: bool
    ) -> Float[Array, "b t y x d"]:
        """Sum of the four stages, projected, normalized and upsampled to the label grid."""
        b, t = video.shape[:2]
        stages = self.resnet(video.reshape(b * t, *video.shape[2:]), train=train)
        parts = [
            resize_bilinear(self.norm(project(stage)), *grid)
            for stage, project in zip(stages, self.project, strict=True)
        ]
        return sum(parts[1:], parts[0]).reshape(b, t, *grid, -1)

    def __call__(
        self,
        video: Float[Array, "b t h w 3"],
        labels: Int[Array, "b t y x"],
        *,
        train: bool,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens (one video a row) and the named intermediates.

        Args:
          video: normalized pixels.
          labels: slot of each cell: 0 = no token, 1..max_trajectories.
          train: batch statistics in the ResNet's normalization.
        """
        _, _, y, x = labels.shape
        features = self.feature_map(video, (y, x), train=train)
        pooled = pool_masks(features, labels, self.slots)
        # Label 0 is "no token"; slot 0 is the CLS: neither has frames.
        is_token = (jnp.arange(self.slots) > 0)[None, :, None]
        present = (areas(labels, self.slots) > 0) & is_token
        box = boxes(labels, self.slots)
        if self.widen is not None:
            pooled = self.widen(pooled)
        appearance = self.appearance(pooled, present)
        position = self.position(self.from_box(box_features(box)), present)
        tokens = one_video_a_row(appearance + position, present.any(-1))
        intermediates = {
            "features": features,
            "pooled": pooled,
            "present": present,
            "boxes": box,
            "appearance": appearance,
            "position": position,
        }
        return tokens, intermediates
