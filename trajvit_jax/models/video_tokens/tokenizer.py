"""What every tokenization offers a video-text model."""

from __future__ import annotations

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Integer

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens
from trajvit_jax.models.transformer import Encoder, encode_rows
from trajvit_jax.ops.impl import Impl


def single_pass(encoder: Encoder) -> None:
    """Raises ValueError if an encoder whose tokens merge on the way is to run more than once."""
    if encoder.settings.passes != 1:
        raise ValueError(
            f"tokens that merge inside the encoder go through it once: set encoder.passes=1, not "
            f"{encoder.settings.passes}"
        )


class VideoTokenizer(nnx.Module):
    """Video -> tokens, and how the encoder reads them.

    Which cells feed a token is told by one of two intermediates, of its own grid of cells:
    `labels`, int32 [b, t, h, w]: the slot that a cell feeds, 0 = none; or `weights`, float32
    [b, n, t, h, w]: how much of each cell is in the n tokens after CLS. Trajectories have
    neither: their labels are what the model is given. `models.footprints` turns both into
    pictures and dense maps.

    One exception: ViViT's states are of time steps, and its `labels` number the tubelets of a
    third intermediate, `spatial` [b, n, d], from 1. Where `spatial` is named, labels are not to be
    looked up in the states.

    Attributes:
      merges: tokens become fewer inside the encoder.
    """

    merges = False

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        del settings, rngs  # what every tokenization is made of

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
    ) -> list[Float[Array, "b t _ _ _"]]:
        """What depends on other videos of the batch in training: nothing, unless a model says."""
        del video, train, valid
        return []

    def tokens(
        self,
        features: list[Float[Array, "b t _ _ _"]],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens and the named intermediates; a video's depend on no other.

        Args:
          features: as `features` gives them.
          video: normalized pixels.
          labels: trajectories, as in `VideoTextModel.encode_video`.
          rows: where tokens go; None = one video a row.
        """
        raise NotImplementedError

    def attention(self, named: dict[str, jax.Array]) -> dict[str, jax.Array]:
        """What the tokenizer itself reads how much of, by name: nothing, unless a model says.

        Args:
          named: the intermediates of `tokens`.
        """
        del named
        return {}

    def encode(
        self, encoder: Encoder, tokens: Tokens, videos: int, *, impl: Impl = "fast"
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """The encoder's states, whose slots they are, and what more there is to name.

        Args:
          encoder: the transformer.
          tokens: as `tokens` gives them.
          videos: how many videos the batch has.
          impl: as in `encode_rows`.

        Returns:
          States; `tokens`, or where they merge on the way those that are left, with the states
          as values; and intermediates, which replace those of the same name.
        """
        return encode_rows(encoder, tokens, videos, impl=impl), tokens, {}
