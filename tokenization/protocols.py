"""What the pipeline asks of a segmenter and of a tracker: NumPy in, NumPy out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32, UInt8


@dataclasses.dataclass(frozen=True)
class Clip:
    """Frames to be tracked together.

    Attributes:
      frames: RGB.
      segments: frame offset -> panoptic segmentation of that frame (0 = no segment).
        Offset 0 is always there; further ones only for a tracker that gives birth.
      between: what the video shows between each frame and the next, in order; no labels are
        asked for there. Empty, or one array (of no frames, perhaps) for each pair.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    segments: Mapping[int, Int32[np.ndarray, "h w"]]
    between: Sequence[UInt8[np.ndarray, "_ h w 3"]] = ()


@runtime_checkable
class Segmenter(Protocol):
    """Cuts single frames into object parts."""

    name: str

    def segment(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Int32[np.ndarray, "k h w"]:
        """Labels 1..m of each frame on its own; 0 = no segment."""
        ...


@runtime_checkable
class Tracker(Protocol):
    """Follows segments through a clip.

    `gives_birth` tells how clips are cut. A tracker that can only follow what it was given
    (SAM2) receives one clip per key frame, running *through the first frame of the next
    clip*, and identities are linked by IoU afterwards. One that starts new labels by itself
    (flow) receives whole shots, from cut to cut, with the segmentations of all key frames
    inside, and needs no linking.
    """

    name: str
    gives_birth: bool

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "t h w"]]:
        """Labels of every frame, one array a clip.

        Overlaps are settled by the tracker's score: a pixel has one label. Ids of offset 0
        are those of `segments[0]`; born labels take ids above every id that was given.
        """
        ...


@runtime_checkable
class Discoverer(Protocol):
    """A tracker that can also say what is one thing, where nobody asks it to follow segments."""

    def starts(self, frames: int) -> Sequence[int]:
        """Which frames of a clip of so many it needs a segmentation of; 0 is one."""
        ...

    def discover(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "t h w"]]:
        """Labels of every frame, one array a clip; segmentations are hints, ids its own."""
        ...
