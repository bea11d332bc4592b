"""The video encoder as the language model uses it: states of all tokens, without the text side."""

from __future__ import annotations

import dataclasses
import functools
from typing import no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx, struct
from jaxtyping import Array, Bool, Float, Int32, Integer, Num

from trajvit_jax.models.inputs import check_video
from trajvit_jax.models.settings import ModelSettings, check_choice
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.transformer import Encoder, cut
from trajvit_jax.models.video_text import TOKENIZERS, VideoTextModel, normalize_pixels, plain_slots
from trajvit_jax.models.video_tokens.tokenizer import VideoTokenizer


@dataclasses.dataclass(frozen=True)
class EyesSettings:
    """Which of the encoder's states are read.

    Attributes:
      skip: last layers that are left out, and with them the final norm. The contrastive loss
        reads CLS alone, so that nothing teaches the last layer what to make of other tokens:
        LLaVA (Liu et al.) reads the states before it.
      cls: the state of the whole video is read, too, before the others.
    """

    skip: int = 1
    cls: bool = True


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Seen:
    """What is seen in the videos of each group.

    Attributes:
      states: of all slots.
      valid: slots that hold a token.
    """

    states: Float[Array, "g n d"]
    valid: Bool[Array, "g n"]


class Eyes(nnx.Module):
    """Videos -> states of their tokens, of any model of the token contract.

    Raises:
      ValueError: an unknown model, or layers left out of one whose tokens change between layers.
    """

    def __init__(self, settings: ModelSettings, own: EyesSettings, *, rngs: nnx.Rngs):
        check_choice("model.name", settings.name, tuple(TOKENIZERS))
        check_skip(settings, own)
        self.settings, self.own = settings, own
        encoder = settings.encoder
        if own.skip:
            depth = encoder.depth - own.skip
            encoder = dataclasses.replace(encoder, depth=depth, final_norm=False)
        self.tokenizer = TOKENIZERS[settings.name](settings, rngs=rngs)
        self.encoder = Encoder(encoder, dtype=jnp.dtype(settings.dtype), rngs=rngs)

    @classmethod
    def of(
        cls, model: VideoTextModel, own: EyesSettings, settings: ModelSettings | None = None
    ) -> Eyes:
        """Those of a trained video-text model; its arrays are shared, not copied.

        Args:
          model: the trained one.
          own: which of its states are read.
          settings: how it is used, of as many slots and in the numbers that these say; None = as
            it was trained.

        Raises:
          ValueError: as the class says, or settings of arrays that the model does not have.
        """
        used = settings or model.settings
        eyes = nnx.eval_shape(lambda: cls(used, own, rngs=nnx.Rngs(0)))
        # Modules keep settings beside their arrays: of the trained ones the arrays alone are taken.
        graph, like = nnx.split(eyes)
        layers = model.encoder.layers
        if own.skip:
            layers, _ = cut(layers, model.settings.encoder.depth - own.skip)
        norm = None if own.skip else model.encoder.norm
        eyes.tokenizer = model.tokenizer
        eyes.encoder.cls, eyes.encoder.layers, eyes.encoder.norm = model.encoder.cls, layers, norm
        state = nnx.state(eyes)
        shapes, wanted = (jax.tree.map(jnp.shape, nnx.to_pure_dict(x)) for x in (state, like))
        if shapes != wanted:
            raise ValueError(f"a trained {model.settings.name} has other arrays than {used}")
        return nnx.merge(graph, state)

    @property
    def width(self) -> int:
        """Of the states."""
        return self.settings.encoder.width

    def __call__(
        self,
        video: Num[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
        *,
        groups: int,
    ) -> Seen:
        """States of all slots, the same number in every group.

        Args:
          video: as `VideoTextModel.encode_video` takes it, as the next two.
          labels: trajectories.
          rows: that videos share.
          groups: of videos, each of which shares no row with another.

        Raises:
          ValueError: as `VideoTextModel.encode_video` does.
        """
        check_video(video, labels, self.settings, rows)
        pixels = normalize_pixels(video) if video.dtype == jnp.uint8 else video
        tokens, _ = self.tokenizer(pixels.astype(self.settings.dtype), labels, rows, train=False)
        states, tokens, _ = self.tokenizer.encode(
            self.encoder, tokens, video.shape[0], impl=self.settings.impl
        )
        valid = tokens.video > 0
        if not self.own.cls:
            valid &= tokens.query > 0
        states = states.reshape(groups, -1, states.shape[-1])
        return Seen(states, valid.reshape(groups, -1))


def check_skip(settings: ModelSettings, own: EyesSettings) -> None:
    """Checks that an encoder's states can be read, and so many of its layers left out.

    Raises:
      ValueError: none would be left, tokens change between layers, or padding is attended to.
    """
    depth, kind = settings.encoder.depth, TOKENIZERS[settings.name]
    if not 0 <= own.skip < depth:
        raise ValueError(f"eyes.skip must be within 0..{depth - 1} of {depth} layers: {own.skip}")
    if own.skip and kind.encode is not VideoTokenizer.encode:
        raise ValueError(
            f"eyes.skip={own.skip}: the layers of {settings.name} read different tokens, so none "
            "can be left out; set eyes.skip=0"
        )
    if own.skip and settings.encoder.passes != 1:
        raise ValueError(
            f"eyes.skip={own.skip}: an encoder of {settings.encoder.passes} passes has no layer "
            "that is read last alone; set eyes.skip=0"
        )
    if settings.name == "trajvit" and settings.trajvit.attend_padding:
        raise ValueError(
            "trajvit.attend_padding=True: what the eyes see would depend on how many slots are "
            "empty; set it to False (python -m trajvit_jax.convert does)"
        )


@functools.cache
def slots_of(settings: ModelSettings) -> int:
    """Slots that a video has a row of its own with, when it leaves the encoder."""
    if settings.name == "trajvit":
        return plain_slots(settings)
    eyes = nnx.eval_shape(lambda: Eyes(settings, EyesSettings(skip=0), rngs=nnx.Rngs(0)))
    graph, state = nnx.split(eyes)
    side, grid, t = settings.image_size, settings.grid, settings.frames
    video = jax.ShapeDtypeStruct((1, t, side, side, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((1, t, grid, grid), jnp.int32)

    def see(state: nnx.State, video: jax.Array, labels: jax.Array) -> Seen:
        return nnx.merge(graph, state)(video, labels, groups=1)

    return jax.eval_shape(see, state, video, labels).valid.shape[1]


def token_numbers(
    settings: ModelSettings,
    own: EyesSettings,
    trajectories: int,
    slots: int,
    *,
    start: int = 0,
) -> Int32[np.ndarray, " n"]:
    """The slots that the language model reads of a video, see `Sequences.source`.

    Args:
      settings: of the video encoder.
      own: of the eyes.
      trajectories: of the video that have slots; other models read all of theirs.
      slots: that a video has (`slots_of`).
      start: the slot of its CLS.
    """
    count = slots
    if settings.name == "trajvit":
        count = 1 + trajectories * settings.trajvit.tokens_each
    return np.arange(start + (0 if own.cls else 1), start + count, dtype=np.int32)
