"""A trained model for people who have video files; `trajvit_jax` hands these names on."""

from trajvit_jax.api.index import Hit, Index
from trajvit_jax.api.loading import available, load
from trajvit_jax.api.model import Encoded, Model
from trajvit_jax.api.reading import Video

__all__ = ["Encoded", "Hit", "Index", "Model", "Video", "available", "load"]
