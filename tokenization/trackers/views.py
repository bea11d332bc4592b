"""What a tracker looks at: the frames of a clip at which labels are settled, linked by flow."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
from jaxtyping import UInt8

from tokenization.protocols import Clip
from tokenization.superpixels import Superpixels, shrink, smooth_lab, superpixels
from tokenization.trackers.optical_flow import Origins, origins, origins_both_ways

_SMALLEST = 16  # pixels of a superpixel


@dataclasses.dataclass(frozen=True, eq=False)
class View:
    """One frame at working resolution.

    Attributes:
      lab: smoothed CIE Lab in 8 bits.
      cells: its superpixels; features are colours, then x and y times `position`.
      sampled: offset of the frame in the clip; None for a frame between sampled ones.
      came: where its pixels are in the view before; None in the first.
      went: where the pixels of the view before are in it; None in the first, and where nobody
        asked for it.
    """

    lab: UInt8[np.ndarray, "h w 3"]
    cells: Superpixels
    sampled: int | None
    came: Origins | None = None
    went: Origins | None = None


def views(
    clip: Clip,
    *,
    both_ways: bool,
    side: int,
    superpixels: int,
    position: float,
    chain: int,
    colour_tolerance: float,
) -> Iterator[View]:
    """All sampled frames, and as many between them that flow goes through few at a time.

    Args:
      clip: its segments are not looked at.
      both_ways: whether labels will be followed back, too.
      side: longer side of the working resolution; smaller frames stay as they are.
      superpixels: in a frame; fewer if they would have under 16 pixels.
      position: what a distance of the longer side adds to that of colours.
      chain: frames that flow goes through, at most, from view to view.
      colour_tolerance: of `origins`.
    """

    def prepare(rgb: UInt8[np.ndarray, "_ _ 3"]) -> UInt8[np.ndarray, "h w 3"]:
        return smooth_lab(shrink(rgb, side))

    before = prepare(clip.frames[0])
    yield View(before, _cells(before, superpixels, position), 0)
    for t, rgb in enumerate(clip.frames[1:], start=1):
        between = list(clip.between[t - 1]) if clip.between else []
        way = [prepare(frame) for frame in (*between, rgb)]
        for part in np.array_split(np.arange(len(way)), -(-len(way) // chain)):
            frames = way[part[0] : part[-1] + 1]
            find = origins_both_ways if both_ways else origins
            found = find(before, frames[-1], between=frames[:-1], colour_tolerance=colour_tolerance)
            came, went = found if isinstance(found, tuple) else (found, None)
            before = frames[-1]
            sampled = t if part[-1] == len(way) - 1 else None
            yield View(before, _cells(before, superpixels, position), sampled, came, went)


def _cells(lab: UInt8[np.ndarray, "h w 3"], superpixel_count: int, position: float) -> Superpixels:
    count = min(superpixel_count, max(1, lab[..., 0].size // _SMALLEST))
    cells = superpixels(lab, count)
    weights = np.array([1, 1, 1, position, position])
    graph = dataclasses.replace(cells.graph, features=cells.graph.features * weights)
    return dataclasses.replace(cells, graph=graph)
