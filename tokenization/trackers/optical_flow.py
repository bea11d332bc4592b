"""Where each pixel of a frame was in the frame before: dense optical flow, both ways."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8

# DIS works on 8x8 patches over a pyramid and needs room for them.
_SMALLEST = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Origins:
    """Where the pixels of a frame come from.

    Attributes:
      rows: in the frame before, inside it.
      columns: in the frame before, inside it.
      sure: where forward and backward flow agree, colours too, and the origin is in the frame.
    """

    rows: Int64[np.ndarray, "h w"]
    columns: Int64[np.ndarray, "h w"]
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
    colour_tolerance: float,
) -> Origins:
    """Follows every pixel of `after` back to `before`.

    A flow is sure where going back and forth ends within 0.5 + 0.01 * (squared lengths) square
    pixels of the start (Sundaram et al. 2010).

    Args:
      before: a frame, smoothed Lab in 8 bits.
      after: the next frame.
      colour_tolerance: largest sum of the three channels' differences, in CIE Lab units.
    """
    height, width = before.shape[:2]
    lightness = np.ascontiguousarray(before[..., 0]), np.ascontiguousarray(after[..., 0])
    backward, forward = dense_flow(lightness[1], lightness[0]), dense_flow(*lightness)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x += backward[..., 0]
    y += backward[..., 1]
    returned = cv2.remap(forward, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    lengths = np.square(backward).sum(-1) + np.square(returned).sum(-1)
    sure = np.square(backward + returned).sum(-1) < 0.01 * lengths + 0.5
    sure &= (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    warped = cv2.remap(before, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    change = cv2.absdiff(warped, after) @ np.array([100 / 255, 1, 1], np.float32)
    sure &= change < colour_tolerance
    rows = np.clip(np.rint(y), 0, height - 1).astype(np.int64)
    columns = np.clip(np.rint(x), 0, width - 1).astype(np.int64)
    return Origins(rows, columns, sure)
