"""Where a trajectory is: its boxes or centres, summed up over frames."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float

from trajvit_jax.models.linear import Linear
from trajvit_jax.models.resampler import Resampler
from trajvit_jax.models.settings import COORDINATES, ModelSettings
from trajvit_jax.ops.resampler_attention import Lift
from trajvit_jax.ops.segments import Segments

FEATURES = 64


def fourier_features(coordinates: Float[Array, "*b k"]) -> Float[Array, "*b 64"]:
    """Sine and cosine of 2, 4 or 5 coordinates in [0, 1], 64 features in all (paper, Table 8).

    A coordinate's are all its sines, then all its cosines; zeros follow those of 5. The paper's
    table gives their number; the angles, 224 * x * 10000^(-i/count), are chosen here: for x in
    [0, 1] alone, base 10000 would leave most frequencies nearly constant.
    """
    count = FEATURES // (2 * coordinates.shape[-1])
    frequency = 224.0 * 10_000.0 ** (-jnp.arange(count, dtype=jnp.float32) / count)
    angle = coordinates[..., None] * frequency
    features = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
    flat = features.reshape(*coordinates.shape[:-1], -1)
    return jnp.pad(flat, [(0, 0)] * (flat.ndim - 1) + [(0, FEATURES - flat.shape[-1])])


def released_sinusoids(coordinates: Float[Array, "*b k"], width: int) -> Float[Array, "*b d"]:
    """The released program's features of k coordinates: sine and cosine alternate over `width`.

    Each coordinate fills width / k of them, and one run of frequencies, 10000^(-i/width), goes
    over all: the later a coordinate comes, the less its features change.

    Raises:
      ValueError: a width that the coordinates do not divide.
    """
    count = coordinates.shape[-1]
    if width % count:
        raise ValueError(f"{count} coordinates do not divide the width {width}")
    index = jnp.arange(width)
    angle = jnp.repeat(coordinates, width // count, axis=-1) * 10_000.0 ** (-index / width)
    return jnp.where(index % 2 == 0, jnp.sin(angle), jnp.cos(angle))


def released_coordinates(segments: Segments, *, boxes: bool) -> Float[Array, "r s t k"]:
    """Coordinates as the released program counts them: row first, in cells from 0.

    A box is (top, left, bottom, right) with its last cell, not the one after. Where a
    trajectory is absent, a centre is (-1, -1), and a box (1, 1, -1/h, -1/w).
    """
    h, w = segments.grid
    present = (segments.areas() > 0)[..., None]
    if not boxes:
        return jnp.where(present, segments.centers()[..., ::-1], -1.0)
    x0, y0, x1, y1 = jnp.moveaxis(segments.boxes(), -1, 0)
    box = jnp.stack([y0, x0, y1 - 1 / h, x1 - 1 / w], -1)
    return jnp.where(present, box, jnp.asarray([1.0, 1.0, -1 / h, -1 / w]))


class Position(nnx.Module):
    """Segments -> one vector a query of each trajectory (paper §3.2)."""

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        own, width = settings.trajvit, settings.encoder.width
        self.settings, self.impl, self.width = own, settings.impl, width
        self.dtype = jnp.dtype(settings.dtype)
        shared = {"dtype": self.dtype, "rngs": rngs}
        linear, summary, mlp = None, None, None
        if own.position_reader == "resampler":
            if own.position_features == "fourier":
                linear = Linear(FEATURES, width, **shared)
            depth = own.position_depth or own.resampler.depth
            resampler = dataclasses.replace(own.resampler, depth=depth)
            summary = Resampler(width, settings.encoder.heads, resampler, **shared)
        elif own.position_reader == "mlp":
            inputs = settings.frames * COORDINATES[own.position]
            layers = [(inputs, width // 4), (width // 4, width)]
            mlp = nnx.List([Linear(*layer, **shared) for layer in layers])
        self.linear, self.summary, self.mlp = linear, summary, mlp

    def coordinates(self, segments: Segments) -> Float[Array, "r s t k"]:
        """Boxes or centres of all segments, in [0, 1] where present.

        With 'boxes_and_frames', also how far into the clip the frame is, from 0 to below 1.
        """
        boxes = self.settings.position != "centers"
        if self.settings.position_features == "released":
            where = released_coordinates(segments, boxes=boxes)
        else:
            where = segments.boxes() if boxes else segments.centers()
        if self.settings.position != "boxes_and_frames":
            return where
        frames = where.shape[2]
        time = jnp.arange(frames, dtype=where.dtype)[:, None] / frames
        return jnp.concatenate([where, jnp.broadcast_to(time, (*where.shape[:-1], 1))], -1)

    def features(
        self, coordinates: Float[Array, "r s t k"]
    ) -> tuple[Float[Array, "r s t _"], Lift | None]:
        """What the resampler reads of each frame, and what makes it as wide as the model."""
        if self.linear is None:  # the released features are as wide
            return released_sinusoids(coordinates, self.width), None
        lift = Lift(self.linear.kernel[...], self.linear.bias[...])
        return fourier_features(coordinates), lift

    def summarize(
        self, coordinates: Float[Array, "r s t k"], present: Bool[Array, "r s t"]
    ) -> Float[Array, "r s q d"]:
        """Each trajectory's coordinates over the frames where it is present -> one a query."""
        if self.summary is not None:
            features, lift = self.features(coordinates)
            return self.summary(features, present, lift=lift, impl=self.impl)
        flat = coordinates.reshape(*coordinates.shape[:2], -1)
        if self.mlp is None:
            vectors = released_sinusoids(flat, self.width)
        else:
            first, second = self.mlp
            vectors = second(jax.nn.relu(first(flat)))
        return vectors.astype(self.dtype)[:, :, None]

    def attention(
        self, coordinates: Float[Array, "r s t k"], present: Bool[Array, "r s t"]
    ) -> Float[Array, "r s q t"] | None:
        """How much each query reads of each frame; other readers than resamplers have none."""
        if self.summary is None:
            return None
        features, lift = self.features(coordinates)
        return self.summary.attention(features, present, lift=lift)
