"""The video-text model: a video encoder and a text encoder in one embedding space."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from trajvit_jax.config import nearest
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.text import TextEncoder
from trajvit_jax.models.tokens import Tokens, cls_states
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens
from trajvit_jax.models.video_tokens.vit3d import TubeletTokens

TOKENIZERS = {"trajvit": TrajectoryTokens, "vit3d": TubeletTokens}

# ImageNet's channel statistics, as in the ResNet's training (torchvision).
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalize_pixels(video: UInt8[Array, "b t h w 3"]) -> Float[Array, "b t h w 3"]:
    """Pixels 0..255 to zero mean and unit variance a channel, float32."""
    return (video / 255.0 - jnp.asarray(_MEAN)) / jnp.asarray(_STD)


def unit_length(x: Float[Array, "*b d"]) -> Float[Array, "*b d"]:
    """L2-normalized vectors, float32."""
    x = x.astype(jnp.float32)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


class VideoTextModel(nnx.Module):
    """CLIP for videos (paper §3.2): both sides projected to unit vectors.

    Raises:
      ValueError: an unknown model name (with the nearest known one).
    """

    def __init__(self, settings: ModelSettings, *, rngs: nnx.Rngs):
        if settings.name not in TOKENIZERS:
            hint = nearest(settings.name, TOKENIZERS)
            raise ValueError(f"unknown model {settings.name!r}: {hint}")
        self.settings = settings
        self.tokenizer = TOKENIZERS[settings.name](settings, rngs=rngs)
        self.encoder = Encoder(settings.encoder, rngs=rngs)
        self.text = TextEncoder(settings.text, rngs=rngs)
        self.project_video = nnx.Linear(settings.encoder.width, settings.projection, rngs=rngs)
        self.project_text = nnx.Linear(settings.text.width, settings.projection, rngs=rngs)
        # A dtype of its own: a weakly typed start would compile the training step twice.
        self.temperature = nnx.Param(jnp.asarray(0.07, jnp.float32))

    def encode_video(
        self,
        video: UInt8[Array, "b t h w 3"],
        labels: Int[Array, "b t y x"],
        *,
        train: bool = False,
    ) -> tuple[Float[Array, "r s d"], Tokens, dict[str, jax.Array]]:
        """States of all slots, the tokens that were read, and the named intermediates."""
        pixels = normalize_pixels(video)
        tokens, intermediates = self.tokenizer(pixels, labels, train=train)
        return self.encoder(tokens), tokens, intermediates

    def embed_video(
        self,
        video: UInt8[Array, "b t h w 3"],
        labels: Int[Array, "b t y x"],
        *,
        train: bool = False,
    ) -> Float[Array, "b p"]:
        """One unit vector a video."""
        states, tokens, _ = self.encode_video(video, labels, train=train)
        return unit_length(self.project_video(cls_states(states, tokens, video.shape[0])))

    def embed_text(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b p"]:
        """One unit vector a caption."""
        return unit_length(self.project_text(self.text(ids, mask)[:, 0]))
