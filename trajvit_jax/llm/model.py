"""The VideoLLM: eyes, a linear connector, and a language model (paper §4.3, after LLaVA)."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from trajvit_jax.llm.eyes import Eyes, EyesSettings, Seen
from trajvit_jax.llm.llama import Llama, positions_in
from trajvit_jax.llm.sequences import Sequences
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.models.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class VideoLLMSettings:
    """A language model with eyes.

    Attributes:
      video: of the video encoder.
      eyes: which of its states are read.
      llm: of the language model.
    """

    video: ModelSettings = ModelSettings()
    eyes: EyesSettings = EyesSettings()
    llm: LlamaSettings = LlamaSettings()


class VideoLLM(nnx.Module):
    """Videos and text -> states and logits of the language model."""

    def __init__(self, settings: VideoLLMSettings, *, rngs: nnx.Rngs):
        self.settings = settings
        self.eyes = Eyes(settings.video, settings.eyes, rngs=rngs)
        self.connector = nnx.Linear(settings.video.encoder.width, settings.llm.width, rngs=rngs)
        self.llm = Llama(settings.llm, rngs=rngs)

    def embed(
        self, sequences: Sequences, seen: Seen | None
    ) -> tuple[Float[Array, "r l d"], Int[Array, "r l"], Int[Array, "r l"]]:
        """What the language model reads: embeddings, segments and positions.

        A place of a video token that turns out to be empty becomes padding: it is in no segment
        and has no position, so that nothing depends on how many there are.

        Args:
          sequences: what stands where.
          seen: the videos' tokens; None = there is no video.
        """
        text = self.llm.embed(sequences.ids)
        segments = sequences.segment
        if seen is None:
            return text, segments, positions_in(segments, segments > 0)
        groups, count, _ = seen.states.shape
        source = sequences.source.reshape(groups, -1)
        place = jnp.clip(source, 0, count - 1)
        states = jnp.take_along_axis(seen.states, place[..., None], axis=1)
        valid = jnp.take_along_axis(seen.valid, place, axis=1) | (source < 0)
        # The connector works on what stands in the rows: most slots of a video are empty.
        words = self.connector(states).astype(text.dtype).reshape(text.shape)
        is_text = (sequences.source < 0)[..., None]
        x = jnp.where(is_text, text, words)
        valid = valid.reshape(segments.shape) & (segments > 0)
        return x, jnp.where(valid, segments, 0), positions_in(segments, valid)

    def __call__(self, sequences: Sequences, seen: Seen | None) -> Float[Array, "r l d"]:
        """The language model's states, for `llm.logits`; see `embed`."""
        return self.llm(*self.embed(sequences, seen))
