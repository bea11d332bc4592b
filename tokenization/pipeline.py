"""Frames -> trajectories: split into clips, segment key frames, track, link (paper §3.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Int32, UInt8

from tokenization import backends, keyframes
from tokenization.backends import Backend
from tokenization.keyframes import KeyframeSettings
from tokenization.learned import LearnedSettings
from tokenization.linking import Rule, link_clips
from tokenization.protocols import Clip, Discoverer, Segmenter, Tracker
from tokenization.segmenters.classical import ClassicalSegmenter, ClassicalSettings
from tokenization.segmenters.patches import PatchSegmenter
from tokenization.trackers.flow import FlowTracker
from tokenization.trackers.flow_settings import FlowSettings
from tokenization.trackers.none import NoTracker
from tokenization.trackers.optical_flow import continuity
from tokenization.trackers.patches import PatchTracker, WalkSettings
from tokenization.trackers.tubes import TubeSettings
from tokenization.trajectories import Trajectories
from tokenization.video import Frames
from trajvit_jax.config import nearest

Split = Literal["both", "keyframes", "stride"]

_ONE_SHOT = 0.3  # of a picture that flow follows from one frame to the next, within a shot


@dataclasses.dataclass(frozen=True)
class PipelineSettings:
    """How a video becomes trajectories.

    Attributes:
      frames: sampled from a video.
      max_side: longer side of decoded frames and label maps, in pixels.
      segmenter: a key of `SEGMENTERS` or of `backends.SEGMENTERS`.
      tracker: a key of `TRACKERS` or of `backends.TRACKERS`.
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
      discover: whether that tracker follows labels from several frames of a shot, and joins the
        pieces on which all agree; otherwise once, from the first frame on, and what comes into
        view starts labels of its own.
      tubes: how they are joined.
      walk: of the patches that the tracking-only ablation follows.
      learned: of the segmenters and trackers that are networks.

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
    discover: bool = True
    tubes: TubeSettings = dataclasses.field(default_factory=TubeSettings)
    walk: WalkSettings = dataclasses.field(default_factory=WalkSettings)
    learned: LearnedSettings = dataclasses.field(default_factory=LearnedSettings)

    @property
    def between(self) -> int:
        """Most frames that the tracker looks at between two sampled ones."""
        return self.flow.between if self.tracker == "flow" else 0

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
            ("segmenter", SEGMENTERS.keys() | backends.SEGMENTERS),
            ("tracker", TRACKERS.keys() | backends.TRACKERS),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"PipelineSettings.{name} = {value!r}: {nearest(value, known)}")


# Those that need neither torch nor weights.
SEGMENTERS: dict[str, Callable[[PipelineSettings], Segmenter]] = {
    "classical": lambda settings: ClassicalSegmenter(settings.classical),
    "patches": lambda settings: PatchSegmenter(settings.walk.patch),
}
TRACKERS: dict[str, Callable[[PipelineSettings], Tracker]] = {
    "flow": lambda settings: FlowTracker(settings.flow, settings.tubes),
    "patches": lambda settings: PatchTracker(settings.walk),
    "none": lambda settings: NoTracker(),
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
        return self.tokenize_batch([frames])[0]

    def tokenize_batch(self, videos: Sequence[Frames]) -> list[Trajectories]:
        """Trajectories of several videos, whose clips are segmented and tracked together.

        Raises:
          ValueError: a video without frames, or with more than 65,535 trajectories.
        """
        plans = [clip_starts(video.rgb, self.settings, video.between) for video in videos]
        track, segmented_at = self.tracker.track, [starts for _, starts in plans]
        if self.settings.discover and isinstance(self.tracker, Discoverer):
            track = self.tracker.discover
            segmented_at = [starts | _needed(self.tracker, cuts) for cuts, starts in plans]
        segmented = self._segment(videos, segmented_at)
        shots = self.tracker.gives_birth
        cut = _shots if shots else _linked_clips
        clips = [
            cut(video, segments, cuts)
            for video, segments, (cuts, _) in zip(videos, segmented, plans, strict=True)
        ]
        tracked = iter(track([clip for its in clips for clip in its]))
        found = []
        for video, its, (_, starts) in zip(videos, clips, plans, strict=True):
            labels = [next(tracked) for _ in its]
            found.append(
                Trajectories.from_labels(
                    _after_cuts(labels) if shots else self._link(labels),
                    frame_times=video.times,
                    key_frames=starts,
                    video=video.video,
                    made_by=self._made_by(video),
                )
            )
        return found

    def _segment(
        self, videos: Sequence[Frames], starts: Sequence[Bool[np.ndarray, " _"]]
    ) -> list[dict[int, Int32[np.ndarray, "h w"]]]:
        """Segments of each video's key frames; frames of one size go to the segmenter together."""
        found: list[dict[int, Int32[np.ndarray, "h w"]]] = [{} for _ in videos]
        by_size: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        for index, (video, its) in enumerate(zip(videos, starts, strict=True)):
            places = [(index, at) for at in np.flatnonzero(its).tolist()]
            by_size.setdefault(video.rgb.shape[1:], []).extend(places)
        for places in by_size.values():
            frames = np.stack([videos[index].rgb[at] for index, at in places])
            for (index, at), labels in zip(places, self.segmenter.segment(frames), strict=True):
                found[index][at] = labels
        return found

    def _link(self, clips: Sequence[Int32[np.ndarray, "_ h w"]]) -> Int32[np.ndarray, "t h w"]:
        settings = self.settings
        return link_clips(clips, threshold=settings.link_iou, rule=settings.link_rule)

    def _made_by(self, video: Frames) -> dict[str, object]:
        settings = noted(self.settings)
        if not learned_parts(self.settings):
            del settings["learned"]
        names = {"segmenter": self.segmenter.name, "tracker": self.tracker.name}
        revisions = dict(self.settings.learned.revisions)
        digest = hashlib.sha256(
            json.dumps([names, settings, video.rgb.shape], sort_keys=True).encode()
        )
        for frames in (video.rgb, *video.between):
            digest.update(np.ascontiguousarray(frames).data)
        told = {"revisions": revisions} if revisions else {}
        return {**names, "settings": settings, **told, "hash": digest.hexdigest()}


def learned_parts(settings: PipelineSettings) -> list[Backend]:
    """The segmenter and the tracker that the settings name, if they are networks."""
    known = ((backends.SEGMENTERS, settings.segmenter), (backends.TRACKERS, settings.tracker))
    return [parts[name] for parts, name in known if name in parts]


def noted(settings: PipelineSettings) -> dict[str, Any]:
    """JSON values of the settings on which trajectories depend.

    Of what networks run on that is the precision, not the device nor what goes through it at once;
    of where their weights came from it is what they are.
    """
    values = json.loads(json.dumps(dataclasses.asdict(settings)))
    del values["learned"]["revisions"]
    if learned_parts(settings):
        values["learned"]["running"] = {"precision": settings.learned.running.precision}
    return values


def resolve(settings: PipelineSettings) -> PipelineSettings:
    """Settings that name the precision of their networks.

    Raises:
      MissingBackend: see `backends.resolve`.
    """
    if not learned_parts(settings):
        return settings
    return dataclasses.replace(settings, learned=backends.resolve(settings.learned))


def prepare(settings: PipelineSettings, weights: str | None = None) -> PipelineSettings:
    """Settings that tell precision and weights; these are on this machine by then.

    Raises:
      MissingBackend, WeightsError: see `backends.prepare`.
    """
    parts = learned_parts(settings)
    if not parts:
        return settings
    learned = backends.prepare(parts, backends.resolve(settings.learned), weights)
    return dataclasses.replace(settings, learned=learned)


def build(settings: PipelineSettings | None = None, weights: str | None = None) -> Pipeline:
    """Makes the segmenter and the tracker that the settings name.

    Args:
      settings: of all of them.
      weights: where those of networks are; see `backends.make`.

    Raises:
      MissingBackend, WeightsError, ValueError: see `backends.make`.
    """
    settings = resolve(settings or PipelineSettings())
    made = []
    for own, networks, name in (
        (SEGMENTERS, backends.SEGMENTERS, settings.segmenter),
        (TRACKERS, backends.TRACKERS, settings.tracker),
    ):
        if name in own:
            made.append(own[name](settings))
        else:
            made.append(backends.make(networks[name], settings.learned, weights))
    return Pipeline(settings, *made)


def _needed(tracker: Discoverer, cuts: Bool[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
    """Frames that a tracker needs a segmentation of, in shots that start at the given frames."""
    needed = np.zeros_like(cuts)
    for start, end in itertools.pairwise([*np.flatnonzero(cuts).tolist(), cuts.size]):
        needed[[start + frame for frame in tracker.starts(end - start)]] = True
    return needed


def _shots(
    video: Frames,
    segments: dict[int, Int32[np.ndarray, "h w"]],
    cuts: Bool[np.ndarray, " t"],
) -> list[Clip]:
    """From cut to cut; no label lives through a cut."""
    bounds = [*np.flatnonzero(cuts).tolist(), len(video.rgb)]
    return [
        Clip(
            video.rgb[a:b],
            {at - a: segments[at] for at in segments if a <= at < b},
            video.between[a : b - 1],
        )
        for a, b in itertools.pairwise(bounds)
    ]


def _after_cuts(shots: Sequence[Int32[np.ndarray, "_ h w"]]) -> Int32[np.ndarray, "t h w"]:
    """Shots one after the other, each with labels above those before."""
    whole = np.concatenate(shots).astype(np.int32, copy=False)
    highest = at = 0
    for labels in shots:
        its = whole[at : at + len(labels)]
        np.add(its, highest, out=its, where=its > 0)
        highest, at = max(highest, int(its.max())), at + len(labels)
    return whole


def _linked_clips(
    video: Frames,
    segments: dict[int, Int32[np.ndarray, "h w"]],
    cuts: Bool[np.ndarray, " t"],
) -> list[Clip]:
    """From key frame to key frame, each through the first frame of the next one."""
    del cuts  # overlap alone decides there, as in the paper: a still background goes on through one
    bounds = [*segments, len(video.rgb)]
    return [
        Clip(video.rgb[a : b + 1], {0: segments[a]}, video.between[a:b])
        for a, b in itertools.pairwise(bounds)
    ]


def clip_starts(
    rgb: UInt8[np.ndarray, "t h w 3"],
    settings: PipelineSettings,
    between: Sequence[UInt8[np.ndarray, "_ h w 3"]] = (),
) -> tuple[Bool[np.ndarray, " t"], Bool[np.ndarray, " t"]]:
    """Where everything changes (cuts), and where a clip starts; frame 0 is both.

    Where there are frames between, a change that none of their steps shows, or through which
    optical flow follows much of the picture, is no cut but a camera that moves fast.

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
    for at in np.flatnonzero(cuts)[1:] if between else []:
        way = np.concatenate([rgb[at - 1 : at], between[at - 1], rgb[at : at + 1]])
        changes = np.flatnonzero(keyframes.detect(way, settings.keyframes)[1:])
        cuts[at] = any(continuity(way[i], way[i + 1]) < _ONE_SHOT for i in changes.tolist())
    if settings.split == "keyframes":
        return cuts, cuts
    return cuts, keyframes.split_clips(cuts, limit)
