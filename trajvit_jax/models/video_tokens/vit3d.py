"""Space-time patches: the tokens of ViT3D (paper §4, after ViViT's tubelets)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int32, Integer

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens, one_video_a_row


def tubelet_labels(
    frames: int, height: int, width: int, *, tubelet: int, patch: int
) -> Int32[np.ndarray, "frames height width"]:
    """The labelling of space-time that tubelets are: 1..n in (t, h, w) order."""
    t, y, x = np.ogrid[:frames, :height, :width]
    rows, columns = height // patch, width // patch
    return (((t // tubelet) * rows + y // patch) * columns + x // patch + 1).astype(np.int32)


class TubeletTokens(nnx.Module):
    """Each `tubelet` x `patch` x `patch` block of pixels is one token, with a learned position.

    Raises:
      ValueError: frames or image size that tubelets do not divide.
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        self.patch, self.tubelet = settings.vit3d.patch, settings.vit3d.tubelet
        if settings.frames % self.tubelet or settings.image_size % self.patch:
            raise ValueError(
                f"{settings.frames} frames of {settings.image_size} px are no multiple of "
                f"{self.tubelet}x{self.patch}x{self.patch} tubelets"
            )
        side = settings.image_size // self.patch
        self.count = settings.frames // self.tubelet * side * side
        self.embed = nnx.Linear(
            3 * self.tubelet * self.patch**2,
            settings.encoder.width,
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )
        position = jax.random.normal(rngs.params(), (self.count, settings.encoder.width))
        self.position = nnx.Param(settings.encoder.init_std * position)

    def __call__(
        self,
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
        *,
        train: bool,
        valid: Bool[Array, "b t"] | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """`tokens` of `features`."""
        return self.tokens(self.features(video, train=train, valid=valid), video, labels, rows)

    def features(
        self,
        video: Float[Array, "b t h w 3"],
        *,
        train: bool,
        valid: Bool[Array, "b t"] | None = None,
    ) -> list[jax.Array]:
        """Nothing: no video's tubelets depend on another video."""
        del video, train, valid
        return []

    def tokens(
        self,
        features: list[jax.Array],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens (one video a row) and the named intermediates; nothing but `video` is used."""
        del features, labels, rows
        b, t, h, w, c = video.shape
        p, f = self.patch, self.tubelet
        blocks = video.reshape(b, t // f, f, h // p, p, w // p, p, c)
        blocks = blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, self.count, -1)
        patches = self.embed(blocks)
        values = patches + self.position[...].astype(patches.dtype)
        values = jnp.pad(values, ((0, 0), (1, 0), (0, 0)))
        tokens = one_video_a_row(values, jnp.ones((b, self.count + 1), bool))
        return tokens, {"patches": patches}
