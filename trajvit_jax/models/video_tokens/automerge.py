"""TrajViT's modules without trajectories: queries that merge patches of all frames freely."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Integer

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens, one_video_a_row
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens
from trajvit_jax.ops.mesh import by_device
from trajvit_jax.ops.segments import Segments


class FreelyMergedTokens(TrajectoryTokens):
    """The paper's control, "AutoMerge" or "TokenMerge" (supplementary §7).

    Frames go through TrajViT's backbone, and its features are pooled as TrajViT pools them, but
    under a grid of square patches. Then the same two resamplers, of appearance and of boxes, read
    not one trajectory's frames but all patches of all frames, with many queries: each pair of
    them is a token. So the parameters are TrajViT's but for the queries.

    Figure 10 of the paper, which shows the original, leaves open how patches are cut; here the
    patches of all frames follow one another, and rotary positions count them.

    Raises:
      ValueError: settings of trajectories that have no meaning here.
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        own, patch = settings.trajvit, settings.automerge.patch
        if settings.image_size % patch or patch % 4:
            raise ValueError(
                f"automerge.patch={patch} does not divide {settings.image_size} px into squares "
                "of whole cells of 4 px: choose a multiple of 4 that does"
            )
        if own.appearance != "resampler" or own.pooling != "mean" or own.attend_padding:
            raise ValueError(
                "automerge needs trajvit.appearance='resampler', trajvit.pooling='mean' and "
                "trajvit.attend_padding=False"
            )
        if own.position_reader != "resampler" and own.position != "none":
            raise ValueError("automerge reads boxes by trajvit.position_reader='resampler' alone")
        merging = settings.automerge
        queries = dataclasses.replace(
            own.resampler, queries=merging.tokens, query_std=merging.query_std
        )
        own = dataclasses.replace(own, resampler=queries, queries_as="tokens")
        super().__init__(dataclasses.replace(settings, trajvit=own), rngs=rngs)
        self.side, self.cell = settings.image_size // patch, patch // 4

    def segments(self, labels: Integer[Array, "b t y x"], rows: Rows | None) -> Segments:
        """The square patches of all frames; of the labels only their number counts."""
        del rows
        place = jnp.arange(self.side * self.cell, dtype=jnp.int32) // self.cell
        number = place[:, None] * self.side + place + 1
        squares = jnp.broadcast_to(number, (*labels.shape[:2], *number.shape))
        return Segments.of(squares, 1 + self.side**2, ordered=self.ordered)

    def tokens(
        self,
        features: list[Float[Array, "b t _ _ _"]],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens (one video a row), and what `TrajectoryTokens` names, of patches in place of
        segments; and `weights` of the appearance, each token's share of every patch."""
        del video, rows
        measured = by_device(self._measure)(self.appearance.projection(), labels, None, features)
        patches = {name: self._in_a_row(x) for name, x in measured.items()}
        pooled, present = patches["pooled"], patches["present"]
        vectors, parts = self.summarize(pooled, patches.get("coordinates"), present)
        values = jnp.pad(vectors[:, 0], ((0, 0), (1, 0), (0, 0)))
        tokens = one_video_a_row(values, jnp.ones(values.shape[:2], bool))
        named = {f"stage{index}": stage for index, stage in enumerate(features)}
        return tokens, named | measured | parts | {"weights": self._weights(pooled, present)}

    def attention(self, named: dict[str, jax.Array]) -> dict[str, Float[Array, "b 1 n p"]]:
        """As of trajectories, of one that the patches of all frames follow one another in."""
        patches = {
            name: self._in_a_row(named[name])
            for name in ("pooled", "coordinates", "present")
            if name in named
        }
        return self._attention(patches["pooled"], patches.get("coordinates"), patches["present"])

    def _in_a_row(self, x: jax.Array) -> jax.Array:
        """[b, 1 + patches, t, ..] -> [b, 1, t patches, ..]: as the frames of one trajectory."""
        flat = x[:, 1:].swapaxes(1, 2)
        return flat.reshape(x.shape[0], 1, -1, *x.shape[3:])

    def _weights(self, pooled: jax.Array, present: jax.Array) -> Float[Array, "b n t y x"]:
        read = self.appearance.attention(pooled, present)
        assert read is not None  # its summary is a resampler
        read = read[:, 0].astype(jnp.float32)
        shares = read / read.sum(-1, keepdims=True)
        return shares.reshape(*shares.shape[:2], -1, self.side, self.side)
