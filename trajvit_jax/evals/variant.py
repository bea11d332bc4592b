"""Which of the paper's models a model is: its size, and what it was taken for an ablation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trajvit_jax.config import to_settings
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    SIZES,
    ModelSettings,
    ResNetSettings,
    TrajViTSettings,
    settings_of_fed,
)
from trajvit_jax.recipe import ENCODER_ABLATIONS

_FED = {name: own for name in FED_TRAJVIT if (own := settings_of_fed(name))}


def size_of(model: ModelSettings) -> str:
    """Of the encoder: S, B, L or H, or 'WIDTH x DEPTH'."""
    own = (model.encoder.width, model.encoder.depth)
    named = {(one.width, one.depth): name for name, one in SIZES.items()}
    return named.get(own, f"{own[0]} x {own[1]}")


def ablation_of(model: ModelSettings, made_by: Mapping[str, Any] | None = None) -> str:
    """Of TrajViT's encoder, by its name in the configs; 'none', or 'other' if it has no name.

    Also the name of a model that reads other records, where the settings tell it, and 'fuse' of a
    TokenLearner with TokenFuser.

    Args:
      model: its settings.
      made_by: the extraction's, as JSON; None = not known.
    """
    if model.name == "token_learner" and model.token_learner.fuse:
        return "fuse"
    if model.name != "trajvit":
        return "none"
    pipeline = (made_by or {}).get("pipeline", {})
    if pipeline.get("tracker") == "patches":
        return "tracking_only"
    if pipeline.get("tracker") == "none":
        return "segmentation_only"
    own = model.trajvit
    # How it is computed is no difference.
    own = dataclasses.replace(
        own, resnet=dataclasses.replace(own.resnet, remat=ResNetSettings().remat)
    )
    for name, changes in (ENCODER_ABLATIONS | _FED).items():
        same = {"max_trajectories": own.max_trajectories} | changes
        if to_settings(TrajViTSettings, same) == own:
            return name
    return "other"
