"""Key frames by the vote of three cut detectors, and clips between them (paper §3.1, suppl. §8).

The detectors are PySceneDetect's, fed with the sampled frames in memory in one pass. Its
thresholds are inclusive: a score equal to the threshold is a cut.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from scenedetect import FrameTimecode
from scenedetect.detector import SceneDetector
from scenedetect.detectors import AdaptiveDetector, ContentDetector, HistogramDetector

# The detectors only count frames; any rate gives the same cuts.
_FPS = 1.0


@dataclasses.dataclass(frozen=True)
class KeyframeSettings:
    """When is a sampled frame a key frame.

    Attributes:
      detectors: `paper` = HSV, luminance histogram and RGB; `released` = those of the released
        program: an adaptive HSV detector, HSV and luminance histogram.
      hsv_threshold: mean absolute difference of hue (0..179), saturation and value (0..255),
        averaged over the three channels.
      luma_threshold: of the correlation of the luminance histograms, read by `luma_rule`.
      luma_rule: `drop` = a cut where the correlation drops by the threshold or more, as
        PySceneDetect means it (0.15: correlation <= 0.85); `literal` = where the correlation
        itself is at or below the threshold, as the paper's text says.
      rgb_threshold: difference of the mean intensity (0..255); `paper` only.
      votes: how many of the three detectors make a key frame.

    Raises:
      ValueError: a value outside its range.
    """

    detectors: Literal["paper", "released"] = "paper"
    hsv_threshold: float = 27.0
    luma_threshold: float = 0.15
    luma_rule: Literal["drop", "literal"] = "drop"
    rgb_threshold: float = 12.0
    votes: int = 2

    def __post_init__(self) -> None:
        if self.detectors not in ("paper", "released"):
            raise ValueError(f"detectors must be 'paper' or 'released', got {self.detectors!r}")
        if self.luma_rule not in ("drop", "literal"):
            raise ValueError(f"luma_rule must be 'drop' or 'literal', got {self.luma_rule!r}")
        if not 0 <= self.luma_threshold <= 1:
            raise ValueError(f"luma_threshold must be within 0..1, got {self.luma_threshold}")
        if not 1 <= self.votes <= 3:
            raise ValueError(f"votes must be 1, 2 or 3 (there are 3 detectors), got {self.votes}")


class IntensityDetector(SceneDetector):
    """Cuts where the mean of R, G and B over all pixels jumps by the threshold or more.

    PySceneDetect's own ThresholdDetector looks for fades to black, not for jumps.
    """

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self._threshold = threshold
        self._last: float | None = None

    def process_frame(self, timecode: FrameTimecode, frame_img: np.ndarray) -> list[FrameTimecode]:
        """Compares with the frame before; returns the frame's own time code if it is a cut."""
        last, self._last = self._last, float(frame_img.mean())
        jumps = last is not None and abs(self._last - last) >= self._threshold
        return [timecode] if jumps else []


def _detectors(settings: KeyframeSettings) -> tuple[SceneDetector, SceneDetector, SceneDetector]:
    drop = settings.luma_threshold
    if settings.luma_rule == "literal":
        drop = 1.0 - settings.luma_threshold
    hsv = ContentDetector(settings.hsv_threshold, min_scene_len=1)
    luma = HistogramDetector(drop, min_scene_len=1)
    if settings.detectors == "paper":
        return hsv, luma, IntensityDetector(settings.rgb_threshold)
    adaptive = AdaptiveDetector(
        adaptive_threshold=1.0, min_scene_len=1, window_width=1, min_content_val=10.0
    )
    return adaptive, hsv, luma


def detect(
    rgb: UInt8[np.ndarray, "t h w 3"], settings: KeyframeSettings | None = None
) -> Bool[np.ndarray, " t"]:
    """Which sampled frames start something new; frame 0 always does.

    Raises:
      ValueError: no frames, or empty ones.
    """
    settings = settings or KeyframeSettings()
    if 0 in rgb.shape:
        raise ValueError(f"there are no key frames in an empty video, rgb {list(rgb.shape)}")
    detectors = _detectors(settings)
    votes = np.zeros((len(detectors), len(rgb)), bool)
    for number, frame in enumerate(rgb):
        bgr = np.ascontiguousarray(frame[..., ::-1])
        timecode = FrameTimecode(number, fps=_FPS)
        for vote, detector in zip(votes, detectors, strict=True):
            vote[[cut.frame_num for cut in detector.process_frame(timecode, bgr)]] = True
    end = FrameTimecode(len(rgb) - 1, fps=_FPS)
    for vote, detector in zip(votes, detectors, strict=True):
        vote[[cut.frame_num for cut in detector.post_process(end)]] = True
    starts = votes.sum(axis=0) >= settings.votes
    starts[0] = True
    return starts


def split_clips(starts: Bool[np.ndarray, " t"], limit: int) -> Bool[np.ndarray, " t"]:
    """Halves clips at their midpoint until none is longer than `limit` frames.

    Args:
      starts: where a clip starts; frame 0 does.
      limit: frames in the longest clip that is left whole.

    Raises:
      ValueError: a limit under one, or frame 0 is not a start.
    """
    if limit < 1:
        raise ValueError(f"the longest clip must have 1 frame or more, got a limit of {limit}")
    if starts.size == 0 or not starts[0]:
        raise ValueError("frame 0 must start a clip")
    starts = starts.copy()
    while True:
        bounds = np.append(np.flatnonzero(starts), starts.size)
        long = np.diff(bounds) > limit
        if not long.any():
            return starts
        starts[(bounds[:-1][long] + bounds[1:][long]) // 2] = True


def stride(t: int, every: int) -> Bool[np.ndarray, " {t}"]:
    """A clip start at every `every`-th of `t` frames.

    Raises:
      ValueError: a stride or a number of frames under one.
    """
    if t < 1 or every < 1:
        raise ValueError(f"t and every must be 1 or more, got t={t}, every={every}")
    return np.arange(t) % every == 0
