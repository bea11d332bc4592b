"""Which of the paper's models a model is: its size, and what it was taken for an ablation."""

from __future__ import annotations

import dataclasses

from trajvit_jax.config import to_settings
from trajvit_jax.models.settings import SIZES, ModelSettings, ResNetSettings, TrajViTSettings
from trajvit_jax.recipe import ENCODER_ABLATIONS


def size_of(model: ModelSettings) -> str:
    """Of the encoder: S, B, L or H, or 'WIDTH x DEPTH'."""
    own = (model.encoder.width, model.encoder.depth)
    named = {(one.width, one.depth): name for name, one in SIZES.items()}
    return named.get(own, f"{own[0]} x {own[1]}")


def ablation_of(model: ModelSettings) -> str:
    """Of TrajViT's encoder, by its name in the configs; 'none', or 'other' if it has no name."""
    if model.name != "trajvit":
        return "none"
    own = model.trajvit
    # How it is computed is no difference.
    own = dataclasses.replace(
        own, resnet=dataclasses.replace(own.resnet, remat=ResNetSettings().remat)
    )
    for name, changes in ENCODER_ABLATIONS.items():
        same = {"max_trajectories": own.max_trajectories} | changes
        if to_settings(TrajViTSettings, same) == own:
            return name
    return "other"
