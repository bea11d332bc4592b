"""Space-time patches: the tokens of ViT3D (paper §4, after ViViT's tubelets)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int32, Integer

from trajvit_jax.models.linear import Linear
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens, one_video_a_row
from trajvit_jax.models.video_tokens.tokenizer import VideoTokenizer
from trajvit_jax.ops.interpolation import resize_linear
from trajvit_jax.ops.wide_gradients import add


def tubelet_labels(
    frames: int, height: int, width: int, *, tubelet: int, patch: int
) -> Int32[np.ndarray, "frames height width"]:
    """The labelling of space-time that tubelets are: 1..n in (t, h, w) order."""
    t, y, x = np.ogrid[:frames, :height, :width]
    rows, columns = height // patch, width // patch
    return (((t // tubelet) * rows + y // patch) * columns + x // patch + 1).astype(np.int32)


class TubeletTokens(VideoTokenizer):
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
        self.side = settings.image_size // self.patch
        self.cells = self.side**2
        self.count = settings.frames // self.tubelet * self.cells
        self.embed = Linear(
            3 * self.tubelet * self.patch**2,
            settings.encoder.width,
            dtype=jnp.dtype(settings.dtype),
            rngs=rngs,
        )
        position = jax.random.normal(rngs.params(), (self.count, settings.encoder.width))
        self.position = nnx.Param(settings.encoder.init_std * position)

    def positions(self, steps: int) -> Float[Array, "n d"]:
        """The position table for so many time steps: longer clips stretch it over time, and
        shorter ones read its first rows, as the released program does."""
        table = self.position[...]
        own = self.count // self.cells
        if steps <= own:
            return table[: steps * self.cells]
        stretched = resize_linear(table.reshape(own, -1), steps)
        return stretched.reshape(steps * self.cells, -1)

    def embed_blocks(self, blocks: Float[Array, "b n _"]) -> Float[Array, "b n d"]:
        """Tubelets' pixels -> tokens without position."""
        return self.embed(blocks)

    def blocks(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b n _"]:
        """The pixels of each tubelet, in (t, h, w) order."""
        b, t, h, w, c = video.shape
        p, f = self.patch, self.tubelet
        blocks = video.reshape(b, t // f, f, h // p, p, w // p, p, c)
        return blocks.transpose(0, 1, 3, 5, 2, 4, 6, 7).reshape(b, t // f * self.cells, -1)

    def tokens(
        self,
        features: list[jax.Array],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens (one video a row), `patches` and `labels`; nothing but `video` is used."""
        del features, labels, rows
        b, t = video.shape[:2]
        patches = self.embed_blocks(self.blocks(video))
        steps = t // self.tubelet
        values = add(patches, self.positions(steps))
        values = jnp.pad(values, ((0, 0), (1, 0), (0, 0)))
        tokens = one_video_a_row(values, jnp.ones(values.shape[:2], bool))
        number = jnp.arange(1, values.shape[1], dtype=jnp.int32)
        cells = jnp.broadcast_to(
            number.reshape(steps, self.side, -1), (b, steps, self.side, self.side)
        )
        return tokens, {"patches": patches, "labels": cells}


class ImageTokens(TubeletTokens):
    """Patches of an image: the 2-D ViT.

    Raises:
      ValueError: settings of several frames.
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        if settings.frames != 1 or settings.vit3d.tubelet != 1:
            raise ValueError(
                f"vit reads images: set frames=1 and vit3d.tubelet=1, not {settings.frames} and "
                f"{settings.vit3d.tubelet}; for videos take vit3d"
            )
        super().__init__(settings, rngs=rngs)
