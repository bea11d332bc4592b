"""The embedded default segmenter: graph-based segmentation of superpixels, without weights."""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int32, UInt8

from tokenization.regions import RegionGraph, merge
from tokenization.resizing import resize_labels
from tokenization.superpixels import shrink, smooth_lab, superpixels


@dataclasses.dataclass(frozen=True)
class ClassicalSettings:
    """Areas are fractions of the frame, so that all frame sizes behave alike.

    Attributes:
      side: longer side of the working resolution, in pixels; smaller frames stay as they are.
      superpixels: how many regions to start from.
      threshold: colour difference (about that of CIE Lab) up to which neighbours are merged.
      grain: area of a region that is merged up to twice the threshold.
      min_area: of a segment.
      max_segments: in a frame; the smallest are merged into their most similar neighbour.

    Raises:
      ValueError: a value out of its range.
    """

    side: int = 256
    superpixels: int = 600
    threshold: float = 2.0
    grain: float = 0.008
    min_area: float = 0.0005
    max_segments: int = 128

    def __post_init__(self) -> None:
        for name in ("side", "superpixels", "max_segments"):
            if getattr(self, name) < 1:
                raise ValueError(f"ClassicalSettings.{name} = {getattr(self, name)} must be >= 1")
        for name in ("threshold", "grain", "min_area"):
            if getattr(self, name) < 0:
                raise ValueError(f"ClassicalSettings.{name} = {getattr(self, name)} must be >= 0")


class ClassicalSegmenter:
    """Cuts frames into regions of one colour under varying shading.

    The bilateral-filtered Lab frame is cut into superpixels, and their graph is merged
    (`regions.merge`). Every pixel gets a segment, and each segment is 4-connected.
    """

    name = "classical"

    def __init__(self, settings: ClassicalSettings | None = None) -> None:
        self._settings = settings or ClassicalSettings()

    def segment(self, frames: UInt8[np.ndarray, "k h w 3"]) -> Int32[np.ndarray, "k h w"]:
        """Segments 1..m of each frame, without gaps."""
        return np.stack([self._segment(frame) for frame in frames])

    def _segment(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Int32[np.ndarray, "h w"]:
        settings = self._settings
        cells = superpixels(smooth_lab(shrink(rgb, settings.side)), settings.superpixels)
        graph = cells.graph
        pixels = cells.labels.size
        segment = merge(
            RegionGraph(graph.areas, graph.features[:, :3], graph.edges),
            threshold=settings.threshold,
            grain=settings.grain * pixels,
            min_area=settings.min_area * pixels,
            max_regions=settings.max_segments,
        )
        labels = (segment[cells.labels] + 1).astype(np.int32)
        return resize_labels(labels, *rgb.shape[:2])
