"""Frames -> trajectories: split into clips, segment key frames, track, link (paper §3.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from tokenization import keyframes
from tokenization.keyframes import KeyframeSettings
from tokenization.linking import Rule, link_clips
from tokenization.protocols import Clip, Segmenter, Tracker
from tokenization.segmenters.classical import ClassicalSegmenter, ClassicalSettings
from tokenization.trackers.flow import FlowSettings, FlowTracker
from tokenization.trajectories import Trajectories
from tokenization.video import Frames
from trajvit_jax.config import nearest

Split = Literal["both", "keyframes", "stride"]


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """How a video becomes trajectories.

    Attributes:
      frames: sampled from a video.
      max_side: longer side of decoded frames and label maps, in pixels.
      segmenter: a key of `SEGMENTERS`.
      tracker: a key of `TRACKERS`.
      keyframes: the cut detectors and their votes.
      split: where clips start: `both` = at detected cuts, and halved at the midpoint until none
        is longer than `clip_limit`; `keyframes` = at detected cuts only; `stride` = at every
        `clip_limit`-th frame, whatever is seen.
      clip_limit: frames; None = a quarter of the video's frames, at least 1.
      link_iou: overlap that makes segments of two clips one trajectory (trackers that cannot
        start new labels).
      link_rule: `one_to_one` (paper) or `many_to_one` (released program).
      classical: of the segmenter of that name.
      flow: of the tracker of that name.

    Raises:
      ValueError: a value out of its range, or an unknown name.
    """

    frames: int = 16
    max_side: int = 512
    segmenter: str = "classical"
    tracker: str = "flow"
    keyframes: KeyframeSettings = dataclasses.field(default_factory=KeyframeSettings)
    split: Split = "both"
    clip_limit: int | None = None
    link_iou: float = 0.8
    link_rule: Rule = "one_to_one"
    classical: ClassicalSettings = dataclasses.field(default_factory=ClassicalSettings)
    flow: FlowSettings = dataclasses.field(default_factory=FlowSettings)

    def __post_init__(self) -> None:
        for name, value in (
            ("frames", self.frames),
            ("max_side", self.max_side),
            ("clip_limit", self.clip_limit),
        ):
            if value is not None and value < 1:
                raise ValueError(f"PipelineSettings.{name} = {value} must be >= 1")
        if not 0 <= self.link_iou <= 1:
            raise ValueError(f"PipelineSettings.link_iou = {self.link_iou} must be within 0..1")
        for name, known in (
            ("split", get_args(Split)),
            ("link_rule", get_args(Rule)),
            ("segmenter", SEGMENTERS),
            ("tracker", TRACKERS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"PipelineSettings.{name} = {value!r}: {nearest(value, known)}")


SEGMENTERS: dict[str, Callable[[PipelineSettings], Segmenter]] = {
    "classical": lambda settings: ClassicalSegmenter(settings.classical),
}
TRACKERS: dict[str, Callable[[PipelineSettings], Tracker]] = {
    "flow": lambda settings: FlowTracker(settings.flow),
}


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A segmenter and a tracker, put together.

    Attributes:
      settings: all of them.
      segmenter: for key frames.
      tracker: for what is between them.
    """

    settings: PipelineSettings
    segmenter: Segmenter
    tracker: Tracker

    def tokenize(self, frames: Frames) -> Trajectories:
        """Trajectories of a video's sampled frames, in the frames' size.

        Raises:
          ValueError: no frames, or more than 65,535 trajectories.
        """
        cuts, starts = clip_starts(frames.rgb, self.settings)
        segment_at = np.flatnonzero(starts)
        segments = dict(
            zip(segment_at.tolist(), self.segmenter.segment(frames.rgb[segment_at]), strict=True)
        )
        join = self._shots if self.tracker.gives_birth else self._linked
        return Trajectories.from_labels(
            join(frames.rgb, segments, cuts),
            frame_times=frames.times,
            key_frames=starts,
            video=frames.video,
            made_by=self._made_by(frames.rgb),
        )

    def _shots(
        self,
        rgb: UInt8[np.ndarray, "t h w 3"],
        segments: dict[int, Int32[np.ndarray, "h w"]],
        cuts: Bool[np.ndarray, " t"],
    ) -> Int32[np.ndarray, "t h w"]:
        """Tracks from cut to cut; no label lives through a cut."""
        bounds = [*np.flatnonzero(cuts).tolist(), len(rgb)]
        clips = [
            Clip(rgb[a:b], {at - a: segments[at] for at in segments if a <= at < b})
            for a, b in itertools.pairwise(bounds)
        ]
        labels = np.zeros(rgb.shape[:3], np.int32)
        highest = 0
        for start, tracked in zip(bounds, self.tracker.track(clips), strict=False):
            labels[start : start + len(tracked)] = np.where(tracked > 0, tracked + highest, 0)
            highest = max(highest, int(labels.max()))
        return labels

    def _linked(
        self,
        rgb: UInt8[np.ndarray, "t h w 3"],
        segments: dict[int, Int32[np.ndarray, "h w"]],
        cuts: Bool[np.ndarray, " t"],
    ) -> Int32[np.ndarray, "t h w"]:
        """Tracks each clip through the first frame of the next one, and links by overlap."""
        del cuts  # segments on the two sides of a cut do not overlap
        bounds = [*segments, len(rgb)]
        clips = [Clip(rgb[a : b + 1], {0: segments[a]}) for a, b in itertools.pairwise(bounds)]
        return link_clips(
            self.tracker.track(clips),
            threshold=self.settings.link_iou,
            rule=self.settings.link_rule,
        )

    def _made_by(self, rgb: UInt8[np.ndarray, "t h w 3"]) -> dict[str, object]:
        settings = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        names = {"segmenter": self.segmenter.name, "tracker": self.tracker.name}
        digest = hashlib.sha256(json.dumps([names, settings, rgb.shape], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(rgb).data)
        return {**names, "settings": settings, "hash": digest.hexdigest()}


def build(settings: PipelineSettings | None = None) -> Pipeline:
    """Makes the segmenter and the tracker that the settings name."""
    settings = settings or PipelineSettings()
    return Pipeline(
        settings, SEGMENTERS[settings.segmenter](settings), TRACKERS[settings.tracker](settings)
    )


def clip_starts(
    rgb: UInt8[np.ndarray, "t h w 3"], settings: PipelineSettings
) -> tuple[Bool[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
    """Where everything changes (cuts), and where a clip starts; frame 0 is both.

    Raises:
      ValueError: no frames, or empty ones.
    """
    if 0 in rgb.shape:
        raise ValueError(f"there is nothing to track in an empty video, rgb {list(rgb.shape)}")
    frames = len(rgb)
    limit = settings.clip_limit or max(1, frames // 4)
    if settings.split == "stride":
        return np.arange(frames) == 0, keyframes.stride(frames, limit)
    cuts = keyframes.detect(rgb, settings.keyframes)
    if settings.split == "keyframes":
        return cuts, cuts
    return cuts, keyframes.split_clips(cuts, limit)
