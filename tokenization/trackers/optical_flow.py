"""Where each pixel of a frame was in the frame before: dense optical flow, both ways."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int16, UInt8

from tokenization.superpixels import shrink, smooth_lab

# DIS works on 8x8 patches over a pyramid and needs room for them.
_SMALLEST = 32
_SAME_COLOUR = 25.0


@dataclasses.dataclass(frozen=True, eq=False)
class Origins:
    """Where the pixels of a frame come from.

    Attributes:
      rows: in the frame before, inside it.
      columns: in the frame before, inside it.
      sure: where forward and backward flow agree, colours too, and the origin is in the frame.
    """

    rows: Int16[np.ndarray, "h w"]
    columns: Int16[np.ndarray, "h w"]
    sure: Bool[np.ndarray, "h w"]


def dense_flow(
    start: UInt8[np.ndarray, "h w"], end: UInt8[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w 2"]:
    """How far (x, y) each pixel of `start` moves until `end` (DIS, Kroeger et al. 2016)."""
    height, width = start.shape
    below, right = max(0, _SMALLEST - height), max(0, _SMALLEST - width)
    if below or right:
        start, end = (
            cv2.copyMakeBorder(gray, 0, below, 0, right, cv2.BORDER_REPLICATE)
            for gray in (start, end)
        )
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    flow = dis.calc(start, end, None)  # type: ignore[call-overload]
    return np.ascontiguousarray(flow[:height, :width])


def origins(
    before: UInt8[np.ndarray, "h w 3"],
    after: UInt8[np.ndarray, "h w 3"],
    *,
    between: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
    colour_tolerance: float,
) -> Origins:
    """Follows every pixel of `after` back to `before`.

    Through the frames between, if there are any: short steps are found where long ones are not.
    The way is sure where going back and forth, all of it, ends within 0.5 + 0.01 * (squared
    lengths) square pixels of the start (Sundaram et al. 2010).

    Args:
      before: a frame, smoothed Lab in 8 bits.
      after: a later frame.
      between: those between, in order.
      colour_tolerance: largest sum of the three channels' differences, in CIE Lab units.
    """
    back, there, inside, _ = _ways([before, *between, after])
    return _origins(before, after, back, there, inside, colour_tolerance)


def origins_both_ways(
    before: UInt8[np.ndarray, "h w 3"],
    after: UInt8[np.ndarray, "h w 3"],
    *,
    between: Sequence[UInt8[np.ndarray, "h w 3"]] = (),
    colour_tolerance: float,
) -> tuple[Origins, Origins]:
    """Where the pixels of `after` are in `before` (`origins`), and those of `before` in `after`."""
    back, there, inside, stays = _ways([before, *between, after])
    return (
        _origins(before, after, back, there, inside, colour_tolerance),
        _origins(after, before, there, back, stays, colour_tolerance),
    )


def _ways(
    frames: Sequence[UInt8[np.ndarray, "h w 3"]],
) -> tuple[
    Float32[np.ndarray, "h w 2"],
    Float32[np.ndarray, "h w 2"],
    Bool[np.ndarray, "h w"],
    Bool[np.ndarray, "h w"],
]:
    """Where the last frame's pixels are in the first one, and the first one's in the last.

    Then which of either are in all the frames.
    """
    height, width = frames[0].shape[:2]
    grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    back, there = grid, grid
    inside, stays = np.ones((height, width), bool), np.ones((height, width), bool)
    lightness = [np.ascontiguousarray(frame[..., 0]) for frame in frames]
    for start, end in itertools.pairwise(lightness):
        step = grid + dense_flow(end, start)
        back, inside = _look_up(back, step), _look_up(inside.astype(np.float32), step) > 0.5
        inside &= _within(step)
        there = there + _look_up(dense_flow(start, end), there)
        stays &= _within(there)
    return back, there, inside, stays


def _origins(
    before: UInt8[np.ndarray, "h w 3"],
    after: UInt8[np.ndarray, "h w 3"],
    back: Float32[np.ndarray, "h w 2"],
    there: Float32[np.ndarray, "h w 2"],
    inside: Bool[np.ndarray, "h w"],
    colour_tolerance: float,
) -> Origins:
    """Of the pixels of `after`, from the ways back and there."""
    height, width = before.shape[:2]
    grid = np.dstack(np.meshgrid(np.arange(width), np.arange(height))).astype(np.float32)
    returned, moved = _look_up(there, back) - grid, back - grid
    lengths = _squares(moved) + _squares(returned - moved)
    sure = inside & (_squares(returned) < 0.01 * lengths + 0.5)
    change = cv2.absdiff(_look_up(before, back), after).astype(np.float32)
    sure &= cv2.transform(change, np.array([[100 / 255, 1, 1]], np.float32)) < colour_tolerance
    rows = np.clip(np.rint(back[..., 1]), 0, height - 1).astype(np.int16)
    columns = np.clip(np.rint(back[..., 0]), 0, width - 1).astype(np.int16)
    return Origins(rows, columns, sure)


def _within(points: Float32[np.ndarray, "h w 2"]) -> Bool[np.ndarray, "h w"]:
    """Whether places (x, y) are in the frame."""
    height, width = points.shape[:2]
    highest = np.array([width - 0.5, height - 0.5])
    return cv2.inRange(points, np.array([-0.5, -0.5]), highest) > 0


def continuity(
    before: UInt8[np.ndarray, "h w 3"], after: UInt8[np.ndarray, "h w 3"], *, side: int = 256
) -> float:
    """Share of a frame (RGB) that flow follows back to the one before, by the rule of `origins`.

    Args:
      before: a frame.
      after: the next one.
      side: longer side of the resolution at which flow is computed, in pixels.
    """
    small = [smooth_lab(shrink(frame, side)) for frame in (before, after)]
    return float(origins(small[0], small[1], colour_tolerance=_SAME_COLOUR).sure.mean())


def _squares(vectors: Float32[np.ndarray, "h w 2"]) -> Float32[np.ndarray, "h w"]:
    return np.square(vectors[..., 0]) + np.square(vectors[..., 1])


def _look_up(image: np.ndarray, at: Float32[np.ndarray, "h w 2"]) -> np.ndarray:
    """Values of an image between its pixels; outside it, those of its border."""
    return cv2.remap(  # type: ignore[call-overload]
        image, at, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
