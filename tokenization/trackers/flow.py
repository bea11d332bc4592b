"""The embedded default tracker: labels carried by optical flow, settled superpixel by superpixel.

One flow serves all labels, so the cost hardly grows with their number.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Int32, Int64

from tokenization.protocols import Clip
from tokenization.resizing import resize_labels
from tokenization.superpixels import colour_features
from tokenization.trackers.camera import own_motion
from tokenization.trackers.flow_settings import FlowSettings
from tokenization.trackers.following import follow, follow_both_ways
from tokenization.trackers.tubes import (
    Tubes,
    TubeSettings,
    common_pieces,
    merge_tubes,
    tubes_of,
)
from tokenization.trackers.views import View, views


class FlowTracker:
    """Follows segments from frame to frame and starts labels for what comes into view.

    Dense optical flow, composed over the frames between where the clip has them, carries the
    labels over where going forward and backward agrees. In each superpixel the labels that come
    are weighed by how much it looks like them: like what they looked like around there a moment
    ago, and like what they looked like when first seen. Neighbouring superpixels of one colour
    draw each other to one label. What looks like nothing known is a lost label that is back, or
    a new one. Every pixel of every frame gets a label.
    """

    name = "flow"
    gives_birth = True

    def __init__(
        self, settings: FlowSettings | None = None, tubes: TubeSettings | None = None
    ) -> None:
        self._settings = settings or FlowSettings()
        self._tubes = tubes or TubeSettings()

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Labels of every frame of each clip; see `protocols.Tracker`.

        Segmentations at offsets above 0 only tell how uncovered regions fall into new labels.
        """
        return [self._track(clip) for clip in clips]

    @staticmethod
    def starts(frames: int) -> list[int]:
        """The first frame, the middle and the last one; see `protocols.Discoverer`."""
        return sorted({0, frames // 2, frames - 1})

    def discover(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Trajectories of each clip; see `protocols.Discoverer`.

        Labels are sharp where they start and blur from there. So they are followed from several
        frames, each time through the whole clip, and the pieces on which all agree are joined by
        what is seen of them in all frames (`merge_tubes`). Superpixels and flow are found once.
        What one frame shows is left as it was segmented: without motion, too much would be joined.
        """
        return [self._discover(clip) for clip in clips]

    def _discover(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        if len(clip.frames) == 1:
            return self._track(clip)
        agreed, tubes = self.pieces(clip)
        numbers = (merge_tubes(tubes, self._tubes) + 1).astype(np.int32)
        labels = np.empty(clip.frames.shape[:3], np.int32)
        for its, pieces in zip(labels, agreed, strict=True):
            its[:] = resize_labels(numbers[pieces], *its.shape)
        return labels

    def pieces(self, clip: Clip) -> tuple[Int64[np.ndarray, "t h w"], Tubes]:
        """Where labels from all starts agree, at working resolution: numbers 0..n-1, and of what.

        Args:
          clip: with a segmentation of each of its `starts`.

        Raises:
          ValueError: a start without one.
        """
        path = list(self._views(clip, both_ways=True))
        sampled = [place for place, view in enumerate(path) if view.sampled is not None]
        starts = [sampled[frame] for frame in self.starts(len(sampled))]
        agreed = common_pieces(
            *(follow_both_ways(self._settings, path, start, clip.segments) for start in starts)
        )
        motions = [
            (own_motion(later.went), later.went.sure)
            for view, later in itertools.pairwise(path)
            if view.sampled is not None and later.went is not None
        ]
        colours = np.stack([colour_features(path[place].lab) for place in sampled])
        del path  # a third of the memory of a long video
        return agreed, tubes_of(agreed, colours, motions)

    def _track(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        height, width = clip.frames.shape[1:3]
        given = clip.segments[0]
        labels = np.empty(clip.frames.shape[:3], np.int32)
        ways = ((view, view.came) for view in self._views(clip, both_ways=False))
        for view, found in follow(self._settings, ways, clip.segments):
            if view.sampled is not None:
                labels[view.sampled] = resize_labels(found, height, width)
        labels[0] = np.where(given > 0, given, labels[0])
        return labels

    def _views(self, clip: Clip, *, both_ways: bool) -> Iterator[View]:
        settings = self._settings
        return views(
            clip,
            both_ways=both_ways,
            side=settings.side,
            superpixels=settings.superpixels,
            position=settings.position,
            chain=settings.chain,
            colour_tolerance=settings.colour_tolerance,
        )
