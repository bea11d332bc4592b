"""What a model computes, compiled once for each shape it is given."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jaxtyping import Bool, Float, Int, Int32, Integer, UInt8

from trajvit_jax.models.footprints import footprint
from trajvit_jax.models.tokens import cls_states
from trajvit_jax.models.video_text import VideoTextModel, unit_length


class Slots(NamedTuple):
    """What the encoder makes of one video.

    Attributes:
      states: of all slots.
      used: slots that hold something; the first is CLS.
      labels: the slot that each cell feeds, or 0; of trajectories their number.
      cls: state of the video as a whole.
      embedding: unit vector.
      attention: of each layer and head, or None.
    """

    states: Float[np.ndarray, "s d"]
    used: Int[np.ndarray, " n"]
    labels: Int[np.ndarray, "u y x"]
    cls: Float[np.ndarray, " d"]
    embedding: Float[np.ndarray, " p"]
    attention: Float[np.ndarray, "layers heads s s"] | None


class Programs:
    """The programs of one model, and its arrays where they run."""

    def __init__(self, module: VideoTextModel):
        module = module.lossless()
        if jax.default_backend() == "cpu":
            module = module.for_cpu()
        graph, self._state = nnx.split(module)

        @jax.jit
        def video(state: nnx.State, *shown: jax.Array) -> jax.Array:
            return nnx.merge(graph, state).embed_video(*shown)

        @jax.jit
        def text(state: nnx.State, *told: jax.Array) -> jax.Array:
            return nnx.merge(graph, state).embed_text(*told)

        @functools.partial(jax.jit, static_argnames="trace")
        def encode(state: nnx.State, video: jax.Array, labels: jax.Array, *, trace: bool) -> Any:
            model = nnx.merge(graph, state)
            states, tokens, named = model.encode_video(video, labels, trace=trace)
            labels = footprint(named, labels)
            if "spatial" in named:  # its tubelets; in the states those of a step share a slot
                step = 1 + jax.numpy.arange(labels.shape[1], dtype=labels.dtype)
                labels = jax.numpy.broadcast_to(step[:, None, None], labels.shape)
            cls = cls_states(states, tokens, 1).astype(jax.numpy.float32)
            return (
                states.astype(jax.numpy.float32)[0],
                tokens.video[0],
                labels[0],
                cls[0],
                unit_length(model.project_video(cls))[0],
                named["attention"][:, 0] if trace else None,
            )

        self._video, self._text, self._encode = video, text, encode

    def video(
        self, video: UInt8[np.ndarray, "b t h w 3"], labels: Integer[np.ndarray, "b t y x"]
    ) -> Float[np.ndarray, "b p"]:
        """Embeddings of videos."""
        return np.asarray(self._video(self._state, video, labels))

    def text(
        self, ids: Int32[np.ndarray, "b l"], mask: Bool[np.ndarray, "b l"]
    ) -> Float[np.ndarray, "b p"]:
        """Embeddings of texts."""
        return np.asarray(self._text(self._state, ids, mask))

    def encode(
        self,
        video: UInt8[np.ndarray, "t h w 3"],
        labels: Integer[np.ndarray, "t y x"],
        *,
        attention: bool,
    ) -> Slots:
        """The slots of one video.

        Raises:
          ValueError: attention of a model whose layers merge tokens.
        """
        made = self._encode(self._state, video[None], labels[None], trace=attention)
        states, of_video, *others = jax.tree.map(np.asarray, made)
        return Slots(states, np.flatnonzero(of_video), *others)
