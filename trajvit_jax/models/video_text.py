"""The video-text model: a video encoder and a text encoder in one embedding space."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Integer, Num

from trajvit_jax.models.inputs import check_text, check_video
from trajvit_jax.models.settings import ModelSettings, check_choice
from trajvit_jax.models.text import TextEncoder
from trajvit_jax.models.tokens import Rows, Tokens, cls_states
from trajvit_jax.models.transformer import Encoder, unstack
from trajvit_jax.models.video_tokens.automerge import FreelyMergedTokens
from trajvit_jax.models.video_tokens.rlt import RunLengthTokens, rlt_slots
from trajvit_jax.models.video_tokens.token_learner import LearnedTokens
from trajvit_jax.models.video_tokens.tokenizer import VideoTokenizer
from trajvit_jax.models.video_tokens.tome import MergedTokens
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens
from trajvit_jax.models.video_tokens.vit3d import ImageTokens, TubeletTokens
from trajvit_jax.models.video_tokens.vivit import FactorizedTokens

# By the names of `settings.NAMES`.
TOKENIZERS: dict[str, type[VideoTokenizer]] = {
    "trajvit": TrajectoryTokens,
    "vit3d": TubeletTokens,
    "vit": ImageTokens,
    "vivit": FactorizedTokens,
    "token_learner": LearnedTokens,
    "tome": MergedTokens,
    "rlt": RunLengthTokens,
    "automerge": FreelyMergedTokens,
}

# ImageNet's channel statistics, as in the ResNet's training (torchvision).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize_pixels(video: Num[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Pixels 0..255 to zero mean and unit variance a channel (ImageNet's), float32."""
    return (video / 255.0 - jnp.asarray(_MEAN)) / jnp.asarray(_STD)


def plain_slots(settings: ModelSettings) -> int:
    """Slots that a model's encoder first reads of a video that has a row of its own, with CLS.

    Of RLT's, which share rows, a video's part of a row.
    """
    if settings.name == "trajvit":
        return 1 + settings.trajvit.max_trajectories * settings.trajvit.tokens_each
    if settings.name == "automerge":
        return 1 + settings.automerge.tokens
    if settings.name == "rlt":
        return rlt_slots(settings, group=settings.rlt.group) // settings.rlt.group
    side = settings.image_size // settings.vit3d.patch
    return 1 + settings.frames // settings.vit3d.tubelet * side**2


def unit_length(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """L2-normalized vectors, float32."""
    x = x.astype(jnp.float32)
    # Not by the norm, whose gradient at zero is not a number.
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))


class VideoTextModel(nnx.Module):
    """CLIP for videos (paper §3.2): both sides projected to unit vectors.

    Raises:
      ValueError: an unknown model name (with the nearest known one).
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        check_choice("model.name", settings.name, tuple(TOKENIZERS))
        self.settings = settings
        dtype = jnp.dtype(settings.dtype)
        self.tokenizer = TOKENIZERS[settings.name](settings, rngs=rngs)
        self.encoder = Encoder(settings.encoder, dtype=dtype, rngs=rngs)
        ordered = settings.deterministic
        self.text = TextEncoder(settings.text, dtype=dtype, ordered=ordered, rngs=rngs)
        self.project_video = nnx.Linear(settings.encoder.width, settings.projection, rngs=rngs)
        self.project_text = nnx.Linear(settings.text.width, settings.projection, rngs=rngs)
        # A dtype of its own: a weakly typed start would compile the training step twice.
        self.temperature = nnx.Param(jnp.asarray(0.07, jnp.float32))

    def encode_video(
        self,
        video: Num[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
        *,
        train: bool = False,
        valid: Bool[Array, "b t"] | None = None,
        trace: bool = False,
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """States of all slots, the tokens in them, and the named intermediates.

        Which cells feed which token is `labels` or `weights` among these, see
        `VideoTokenizer`; trajectories have what is given here.

        Args:
          video: pixels 0..255 in uint8, or already normalized by ImageNet's channel statistics
            in a float dtype.
          labels: trajectory of each cell, 0 = none; with `rows`, its first slot there.
          rows: where tokens go, several videos a row; None = one video a row.
          train: batch statistics in the backbone's normalization.
          valid: frames that count in these statistics; None = all.
          trace: add `states` (before each layer and after the last) and `attention` (of each
            layer) to the intermediates, and of trajectories `appearance_attention` and
            `position_attention` [r, s, q, t]: how much each query of a slot's trajectory reads of
            each frame.

        Raises:
          ValueError: inputs whose shapes do not belong together or to the model, labels
            beyond the slots, pixels that are not finite, a trace of layers that read different
            numbers of tokens. Values are only looked at outside a compiled program.
        """
        check_video(video, labels, self.settings, rows, valid)
        if trace and self.tokenizer.merges:
            raise ValueError(
                f"{self.settings.name} has no trace: its layers read ever fewer tokens"
            )
        pixels = self.pixels(video)
        tokens, intermediates = self.tokenizer(pixels, labels, rows, train=train, valid=valid)
        states, left, more = self.tokenizer.encode(
            self.encoder, tokens, video.shape[0], impl=self.settings.impl
        )
        intermediates |= more
        if trace:
            traced = self.encoder.trace(tokens)
            intermediates |= {"states": traced.states, "attention": traced.attention}
            intermediates |= self.tokenizer.attention(intermediates)
        return states, left, intermediates

    def embed_video(
        self,
        video: Num[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
        *,
        train: bool = False,
        valid: Bool[Array, "b t"] | None = None,
    ) -> Float[Array, "b p"]:
        """One unit vector a video, float32; see `encode_video`."""
        check_video(video, labels, self.settings, rows, valid)
        pixels = self.pixels(video)
        features = self.features(pixels, train=train, valid=valid)
        return self.embed_features(features, pixels, labels, rows)

    def pixels(self, video: Num[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
        """Normalized pixels in the model's dtype; floats are taken to be normalized."""
        normalized = normalize_pixels(video) if video.dtype == jnp.uint8 else video
        return normalized.astype(self.settings.dtype)

    def features(
        self,
        pixels: Float[Array, "b t h w 3"],
        *,
        train: bool = False,
        valid: Bool[Array, "b t"] | None = None,
    ) -> list[Float[Array, "b t _ _ _"]]:
        """Maps of the tokenizer's backbone, where it has one, of pixels as `pixels` gives them."""
        with jax.named_scope("backbone"):
            return self.tokenizer.features(pixels, train=train, valid=valid)

    def embed_features(
        self,
        features: list[Float[Array, "b t _ _ _"]],
        pixels: Float[Array, "b t h w 3"],
        labels: Integer[Array, "b t y x"],
        rows: Rows | None = None,
    ) -> Float[Array, "b p"]:
        """`embed_video` behind the backbone: no video depends on another from here on.

        Args:
          features: as `features` gives them.
          pixels: as `pixels` gives them.
          labels: as in `encode_video`, as are `rows`.
        """
        with jax.named_scope("tokens"):
            tokens, _ = self.tokenizer.tokens(features, pixels, labels, rows)
        videos = labels.shape[0]
        impl = self.settings.impl
        with jax.named_scope("transformer"):
            states, tokens, _ = self.tokenizer.encode(self.encoder, tokens, videos, impl=impl)
            cls = cls_states(states, tokens, videos).astype(jnp.float32)
            return unit_length(self.project_video(cls))

    def lossless(self) -> VideoTextModel:
        """The same model, whose videos have slots for all of their tokens, whoever is beside them.

        Training bounds RLT's rows, which several videos share; what reads a video must not.
        """
        rlt = dataclasses.replace(self.settings.rlt, group=1, slots=0)
        if rlt == self.settings.rlt:
            return self
        graph, state = nnx.split(self)
        model = nnx.merge(graph, state)
        model.settings = dataclasses.replace(self.settings, rlt=rlt)
        if isinstance(model.tokenizer, RunLengthTokens):
            model.tokenizer.settings = dataclasses.replace(model.tokenizer.settings, rlt=rlt)
        return model

    def for_cpu(self) -> VideoTextModel:
        """The same model in the form for inference on CPU: the same numbers, sooner.

        Layers are separate (see `unstack`), and the backbone reads frames in eight groups, which
        run side by side and stay in the caches. It compiles longer.
        """
        graph, state = nnx.split(self)
        model = nnx.merge(graph, state)
        model.encoder.layers = unstack(self.encoder.layers)
        model.text.layers = unstack(self.text.layers)
        if isinstance(model.tokenizer, TrajectoryTokens):
            model.tokenizer.appearance.groups = 8
        return model

    def embed_text(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b p"]:
        """One unit vector a caption, float32.

        Raises:
          ValueError: more tokens than the position table has rows, ids beyond the vocabulary.
        """
        check_text(ids, mask, self.settings.text)
        with jax.named_scope("text"):
            return unit_length(self.project_text(self.text(ids, mask)[:, 0].astype(jnp.float32)))
