"""Video and image files -> what the eyes read, cut as the videos were that they learned from."""

from __future__ import annotations

import dataclasses
import functools
import os

import numpy as np
from jaxtyping import Int32, UInt8

from tokenization import pipeline, video
from tokenization.recorder import ExtractSettings
from tokenization.records import Record
from tokenization.trajectories import Trajectories
from tokenization.video import Frames
from trajvit_jax.data.samples import in_slots, resized
from trajvit_jax.models.settings import ModelSettings

# What these read is frame by frame: an image is a video of one frame for them.
_BY_FRAME = ("trajvit", "automerge", "vit")


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
    """A video as the eyes read it.

    Attributes:
      video: pixels at the model's size.
      labels: trajectory of each cell, 1..trajectories; zeros for a model that reads patches.
      trajectories: that have slots.
      dropped: that have none.
    """

    video: UInt8[np.ndarray, "t h w 3"]
    labels: Int32[np.ndarray, "t y x"]
    trajectories: int
    dropped: int


class VideoReader:
    """Decodes files, cuts them into trajectories where the model reads these, and resizes.

    Args:
      model: what is read for.
      tokenization: how the model's records were made.
    """

    def __init__(self, model: ModelSettings, tokenization: ExtractSettings):
        self._model, self._tokenization = model, tokenization

    def read(
        self,
        path: str | os.PathLike[str],
        *,
        frames: int = 0,
        start: float = 0.0,
        stop: float | None = None,
    ) -> Clip:
        """One file.

        Args:
          path: of a video or an image, which is one frame.
          frames: sampled from it; 0 = as many as the model was trained with.
          start: second from which on it is read.
          stop: second up to which; None = its end.

        Raises:
          tokenization.video.VideoError: a ValueError; it cannot be read, and why.
          ValueError: a number of frames that the model cannot read.
        """
        frames = frames or self._model.frames
        step = 1 if self._model.name in _BY_FRAME else self._model.vit3d.tubelet
        if frames % step:
            raise ValueError(f"{self._model.name} reads multiples of {step} frames, not {frames}")
        chosen = self._tokenization.pipeline
        found = video.decode(
            path,
            frames=frames,
            between=chosen.between if self._model.name == "trajvit" else 0,
            start=start or None,
            end=stop,
            max_side=chosen.max_side,
        )
        return self._sized(found)

    def _sized(self, frames: Frames) -> Clip:
        cuts = self._model.name == "trajvit"
        trajectories = self._cutter(len(frames.rgb)).tokenize(frames) if cuts else _whole(frames)
        record = Record.squash(trajectories, frames.rgb, size=self._tokenization.record_size)
        model = dataclasses.replace(self._model, frames=len(frames.rgb))
        pixels, trajectories = resized(record, model)
        if not cuts:
            if len(pixels) == 1 and self._model.name not in _BY_FRAME:
                # It stands still for as long as images did in training: see `talks.still`.
                pixels = np.repeat(pixels, self._model.frames, axis=0)
            labels = np.zeros((len(pixels), model.grid, model.grid), np.int32)
            return Clip(pixels, labels, 0, 0)
        most = model.trajvit.max_trajectories
        labels, dropped = in_slots(trajectories, most)
        return Clip(pixels, labels, min(most, len(trajectories)), dropped)

    @functools.lru_cache(maxsize=8)  # noqa: B019 - a reader lives as long as its program
    def _cutter(self, frames: int) -> pipeline.Pipeline:
        chosen = dataclasses.replace(self._tokenization.pipeline, frames=frames)
        return pipeline.build(chosen)


def _whole(frames: Frames) -> Trajectories:
    """A label map that means nothing, for models that read none."""
    labels = np.ones(frames.rgb.shape[:3], np.uint16)
    return Trajectories(labels, frames.times, np.arange(len(labels)) == 0, frames.video)
