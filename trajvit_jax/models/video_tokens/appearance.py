"""What a trajectory looks like: backbone features under its masks, summed up over frames."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trajvit_jax.models.hiera import Hiera
from trajvit_jax.models.linear import Linear
from trajvit_jax.models.resampler import Resampler
from trajvit_jax.models.resnet import ResNet
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.ops.mask_pooling import Projection, feature_map, pool_corners, pool_stages
from trajvit_jax.ops.segments import Segments

CORNERS = 2


class Appearance(nnx.Module):
    """Frames and segments -> one vector a query of each trajectory (paper §3.2, eq. 1).

    Attributes:
      groups: in how many groups the backbone reads the frames outside training, where they do
        not depend on one another. The compiled program holds the backbone once a group. For one
        device: the groups of a batch that several hold would be cut across them.
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        own, encoder = settings.trajvit, settings.encoder
        self.settings, self.impl, self.dtype = own, settings.impl, jnp.dtype(settings.dtype)
        self.groups = 1
        shared = {"dtype": self.dtype, "rngs": rngs}
        if own.backbone == "resnet":
            self.backbone = ResNet(own.resnet, **shared)
            widths = own.resnet.widths
        else:
            self.backbone = Hiera(own.hiera, **shared)
            widths = own.hiera.widths
        width = own.feature_width or encoder.width
        used = widths if own.hierarchical else widths[-1:]
        self.project = nnx.List([nnx.Linear(channels, width, rngs=rngs) for channels in used])
        self.norm = nnx.LayerNorm(width, epsilon=1e-5, rngs=rngs)
        self.widen = None if width == encoder.width else Linear(width, encoder.width, **shared)
        if own.appearance == "resampler":
            self.summary = Resampler(encoder.width, encoder.heads, own.resampler, **shared)
        else:
            self.summary = Linear(encoder.width, encoder.width, **shared)

    def stages(
        self,
        video: Float[Array, "b t h w 3"],
        *,
        train: bool,
        valid: Bool[Array, "b t"] | None = None,
    ) -> list[Float[Array, "b t _ _ _"]]:
        """The backbone's features of every frame, of the stages that are used."""
        b, t = video.shape[:2]
        frames = video.reshape(b * t, *video.shape[2:])
        counts = None if valid is None else valid.reshape(-1)
        if train:
            stages = self._read(frames, train=True, valid=counts)
        else:
            groups = jnp.array_split(frames, min(self.groups, b * t))
            parts = [self._read(group, train=False, valid=None) for group in groups]
            stages = [jnp.concatenate(stage) for stage in zip(*parts, strict=True)]
        used = stages if self.settings.hierarchical else stages[-1:]
        return [stage.reshape(b, t, *stage.shape[1:]) for stage in used]

    def _read(self, frames: jax.Array, *, train: bool, valid: jax.Array | None) -> list[jax.Array]:
        if isinstance(self.backbone, ResNet):
            return self.backbone(frames, train=train, valid=valid)
        return self.backbone(frames, train=train)

    def projection(self) -> Projection:
        """The weights that bring all stages to one width."""
        return Projection(
            tuple(linear.kernel[...] for linear in self.project),
            tuple(linear.bias[...] for linear in self.project),
            self.norm.scale[...],
            self.norm.bias[...],
            self.norm.epsilon,
        )

    def pool(
        self, stages: list[Float[Array, "b t _ _ _"]], projection: Projection, segments: Segments
    ) -> Float[Array, "r s t _"]:
        """A vector a segment; with 'corners', four of them one after the other."""
        if self.settings.pooling == "mean":
            return pool_stages(stages, projection, segments, impl=self.impl)
        features = feature_map(stages, projection, segments.grid)
        points = pool_corners(features, segments, CORNERS)
        return points.reshape(*points.shape[:3], -1)

    def summarize(
        self, pooled: Float[Array, "r s t _"], present: Bool[Array, "r s t"]
    ) -> Float[Array, "r s q d"]:
        """Each trajectory's vectors over the frames where it is present -> one a query."""
        pooled, present = self._read_by_summary(pooled, present)
        if isinstance(self.summary, Resampler):
            return self.summary(pooled.astype(self.dtype), present, impl=self.impl)
        frames = jnp.maximum(present.sum(2, keepdims=True), 1)
        mean = jnp.where(present[..., None], pooled, 0).sum(2) / frames
        return self.summary(mean.astype(self.dtype))[:, :, None]

    def attention(
        self, pooled: Float[Array, "r s t _"], present: Bool[Array, "r s t"]
    ) -> Float[Array, "r s q t"] | None:
        """How much each query reads of each frame, of all its points; a mean has no queries."""
        if not isinstance(self.summary, Resampler):
            return None
        *slots, frames = present.shape
        read = self.summary.attention(*self._read_by_summary(pooled, present))
        return read.reshape(*slots, read.shape[2], -1, frames).sum(3)

    def _read_by_summary(
        self, pooled: jax.Array, present: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Vectors of the encoder's width, a point after the other where segments have several."""
        if self.settings.pooling == "corners":
            # All frames at the first point, then all at the second, as if the clip were longer.
            r, s, t, _ = pooled.shape
            points = pooled.reshape(r, s, t, CORNERS**2, -1).transpose(0, 1, 3, 2, 4)
            pooled = points.reshape(r, s, CORNERS**2 * t, -1)
            present = jnp.tile(present, (1, 1, CORNERS**2))
        return pooled if self.widen is None else self.widen(pooled), present
