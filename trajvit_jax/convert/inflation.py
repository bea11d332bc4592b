"""An image ViT's arrays for a model of tubelets: how training on videos starts from images.

The paper's image -> video transfer (§3.3, Table 11) trains a ViT on images, and a ViT3D from its
weights on videos. Tubelets see their central frame as the image's patches, and the others not
(ViViT: Arnab et al., "central frame initialisation"); every time step has the image's positions.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from trajvit_jax.models.settings import ModelSettings

# Those whose tubelets have the arrays of ViT3D's.
TUBELETS = ("vit3d", "tome", "rlt", "token_learner")
_KERNEL, _POSITION = "tokenizer.embed.kernel", "tokenizer.position"


def is_inflatable(stored: ModelSettings, model: ModelSettings) -> bool:
    """Whether these are an image ViT and a model of tubelets of several frames."""
    image = stored.name in ("vit", "vit3d") and stored.frames == stored.vit3d.tubelet == 1
    video = model.name in TUBELETS and (model.frames > 1 or model.vit3d.tubelet > 1)
    return image and video


def inflate(
    arrays: Mapping[str, np.ndarray], stored: ModelSettings, model: ModelSettings
) -> tuple[dict[str, np.ndarray], ModelSettings]:
    """The arrays as the model of tubelets has them, and the settings that they then are of.

    Args:
      arrays: of the image ViT, by dotted path; others stay as they are.
      stored: its settings.
      model: the settings of the model of tubelets.
    """
    frames, steps = model.vit3d.tubelet, model.frames // model.vit3d.tubelet
    inflated = dict(arrays)
    if _KERNEL in arrays:
        kernel = arrays[_KERNEL]
        volume = np.zeros((frames, *kernel.shape), kernel.dtype)
        volume[frames // 2] = kernel
        inflated[_KERNEL] = volume.reshape(-1, kernel.shape[-1])
    if _POSITION in arrays:
        inflated[_POSITION] = np.tile(arrays[_POSITION], (steps, 1))
    tubes = dataclasses.replace(stored.vit3d, tubelet=frames)
    own = {name: getattr(model, name) for name in TUBELETS if name != "vit3d"}
    now = dataclasses.replace(stored, name=model.name, frames=model.frames, vit3d=tubes, **own)
    return inflated, now
