"""Trajectory tokens: one per object part followed through time (paper §3.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows, Tokens, one_video_a_row, plain_queries
from trajvit_jax.models.video_tokens.appearance import Appearance
from trajvit_jax.models.video_tokens.position import Position
from trajvit_jax.models.video_tokens.tokenizer import VideoTokenizer
from trajvit_jax.ops.mask_pooling import Projection
from trajvit_jax.ops.mesh import by_device
from trajvit_jax.ops.segments import Segments, at_least_int32

# Frames of a trajectory that is nowhere which the released program reads all the same.
_PADDING_FRAMES = 10


class TrajectoryTokens(VideoTokenizer):
    """Video and label maps -> one token a trajectory: appearance + position."""

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        self.settings, self.ordered = settings.trajvit, settings.deterministic
        self.each = settings.trajvit.tokens_each
        self.slots = 1 + settings.trajvit.max_trajectories * self.each
        self.appearance = Appearance(settings, rngs=rngs)
        has_position = settings.trajvit.position != "none"
        self.position = Position(settings, rngs=rngs) if has_position else None

    def features(
        self,
        video: Float[Array, "b t h w 3"],
        *,
        train: bool,
        valid: Bool[Array, "b t"] | None = None,
    ) -> list[Float[Array, "b t _ _ _"]]:
        """What the backbone sees in each frame: in training, the videos of a batch share it.

        Args:
          video: normalized pixels.
          train: batch statistics in the backbone's normalization.
          valid: frames that count in these statistics; None = all.
        """
        return self.appearance.stages(video, train=train, valid=valid)

    def tokens(
        self,
        features: list[Float[Array, "b t _ _ _"]],
        video: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> tuple[Tokens, dict[str, jax.Array]]:
        """Tokens and the named intermediates; a video's depend on no other.

        Args:
          features: of the frames, as `features` gives them.
          video: not used; other tokenizers read pixels here.
          labels: the trajectory of each cell: 0 = none, 1..max_trajectories. With `rows`: the
            first slot of the trajectory in its video's row, which holds as many at most.
          rows: where tokens go; None = one video a row.

        Returns:
          Tokens, and by name: `stage0`.. (the backbone's features), `pooled` (a vector a
          segment), `present` (segments that are), `coordinates`, `appearance` and `position`
          (vectors of each slot's trajectory, one a query; of each trajectory's in the order of
          the row, where they have several tokens).
        """
        del video
        measured = by_device(self._measure)(self.appearance.projection(), labels, rows, features)
        slots, read = measured["present"].shape[1], measured
        if self.each > 1:  # of a trajectory's slots, the first alone has something to read
            query = self._queries(*measured["present"].shape[:2], rows)
            first = jnp.argsort(query != 1, axis=1, stable=True)[:, : slots // self.each]
            read = {name: _of_slots(x, first) for name, x in measured.items()}
        vectors, parts = self.summarize(read["pooled"], read.get("coordinates"), read["present"])
        tokens = self._tokens(vectors, read["present"].any(-1), slots, rows)
        named = {f"stage{index}": stage for index, stage in enumerate(features)}
        return tokens, named | measured | parts

    def _measure(
        self,
        projection: Projection,
        labels: jax.Array,
        rows: Rows | None,
        features: list[jax.Array],
    ) -> dict[str, jax.Array]:
        """What is summed over the cells of segments."""
        segments = self.segments(labels, rows)
        measured = {
            "pooled": self.appearance.pool(features, projection, segments),
            "present": segments.areas() > 0,
        }
        if self.position is not None:
            measured["coordinates"] = self.position.coordinates(segments)
        return measured

    def segments(self, labels: Integer[Array, "b t y x"], rows: Rows | None) -> Segments:
        """The segments that the labels mean."""
        if rows is None:
            labels = at_least_int32(labels)
            # Before multiplying, which could bring a label from far outside back in.
            inside = (labels > 0) & (labels <= self.settings.max_trajectories)
            number = jnp.where(inside, labels, 0).astype(jnp.int32)
            first = jnp.where(inside, (number - 1) * self.each + 1, 0)
            return Segments.of(first, self.slots, ordered=self.ordered)
        rows = rows.merged()
        _, row_count, slots = rows.video.shape
        return Segments.of(
            labels,
            slots,
            row=rows.row[0],
            rows=row_count,
            first=rows.first()[0],
            span=self.slots,
            ordered=self.ordered,
        )

    def summarize(
        self,
        pooled: Float[Array, "r s t _"],
        coordinates: Float[Array, "r s t k"] | None,
        present: Bool[Array, "r s t"],
    ) -> tuple[Float[Array, "r s q d"], dict[str, jax.Array]]:
        """Vectors of each slot's trajectory, one a token of it, and their two parts by name."""
        present = self._read_frames(present)
        parts = {"appearance": self.appearance.summarize(pooled, present)}
        if self.position is not None:
            assert coordinates is not None
            parts["position"] = self.position.summarize(coordinates, present)
        vectors = sum(self._by_token(part) for part in parts.values())
        return vectors, parts

    def attention(self, named: dict[str, jax.Array]) -> dict[str, Float[Array, "r s q t"]]:
        """`appearance_attention` and `position_attention`, where resamplers read them.

        Args:
          named: the intermediates of `tokens`.
        """
        return self._attention(named["pooled"], named.get("coordinates"), named["present"])

    def _attention(
        self, pooled: jax.Array, coordinates: jax.Array | None, present: jax.Array
    ) -> dict[str, jax.Array]:
        present = self._read_frames(present)
        found = {"appearance_attention": self.appearance.attention(pooled, present)}
        if self.position is not None:
            assert coordinates is not None
            found["position_attention"] = self.position.attention(coordinates, present)
        return {name: read for name, read in found.items() if read is not None}

    def _read_frames(self, present: jax.Array) -> jax.Array:
        """Frames that the resamplers read of each slot."""
        if not self.settings.attend_padding:
            return present
        padding = ~present.any(-1, keepdims=True)
        return present | (padding & (jnp.arange(present.shape[-1]) < _PADDING_FRAMES))

    def _by_token(self, vectors: jax.Array) -> jax.Array:
        if vectors.shape[2] == self.each:
            return vectors
        return vectors.sum(2, keepdims=True)

    def _queries(self, r: int, s: int, rows: Rows | None) -> Int[Array, "r s"]:
        return plain_queries(r, s, self.each) if rows is None else rows.merged().query[0]

    def _tokens(self, vectors: jax.Array, seen: jax.Array, slots: int, rows: Rows | None) -> Tokens:
        """Puts each trajectory's vectors into its slots, which follow one another."""
        if self.settings.attend_padding:
            seen = jnp.ones_like(seen)
        r, n, q, d = vectors.shape
        query = self._queries(r, slots, rows)
        values = vectors[:, :, 0]
        if self.each > 1:
            number = jnp.cumsum(query == 1, axis=1) - 1  # of the row's trajectories
            own = jnp.where(query > 0, number * q + query - 1, n * q + jnp.arange(slots))
            values = _of_slots(vectors.reshape(r, n * q, d), own)
            seen = jnp.take_along_axis(seen, jnp.clip(number, 0, n - 1), axis=1)
        if rows is None:
            return one_video_a_row(values, seen, queries=self.each)
        return Tokens(values, jnp.where(seen | (query == 0), rows.merged().video[0], 0), query)


def _of_slots(x: Shaped[Array, "r s *_"], slots: Int[Array, "r n"]) -> Shaped[Array, "r n *_"]:
    """What these slots of each row hold, and zeros for numbers beyond the last.

    No slot may be named twice: the gradient needs no sum.
    """

    def of_row(x: jax.Array, slots: jax.Array) -> jax.Array:
        return x.at[slots].get(mode="fill", fill_value=0, unique_indices=True)

    return jax.vmap(of_row)(x, slots)
