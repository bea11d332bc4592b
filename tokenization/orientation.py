"""How a decoded frame is to be shown: quarter turns and mirroring from its metadata."""

from __future__ import annotations

import av
import numpy as np
from jaxtyping import UInt8

# Display matrices (a, b, c, d) of turns by 0, 90, 180 and 270 degrees counterclockwise.
_QUARTER_TURNS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


def displayed_size(frame: av.VideoFrame) -> tuple[int, int]:
    """(width, height) as shown, in pixels."""
    a, b, _, _ = _display_matrix(frame)
    return (frame.height, frame.width) if abs(b) > abs(a) else (frame.width, frame.height)


def apply(
    rgb: UInt8[np.ndarray, "stored_h stored_w 3"], frame: av.VideoFrame
) -> UInt8[np.ndarray, "h w 3"]:
    """Turns and mirrors pixels of a frame (at any scale) as its display matrix says."""
    a, b, c, d = _display_matrix(frame)
    flip_x, flip_y = a < 0, d < 0
    if abs(b) > abs(a):
        rgb = rgb.swapaxes(0, 1)
        flip_x, flip_y = c < 0, b < 0
    return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d): the stored pixel (x, y) is shown at (ax + cy, bx + dy)."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV cannot list the EXIF data of a photo, but still knows its angle.
        return _QUARTER_TURNS[round(frame.rotation / 90) % 4]
    if data is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
    return a, b, c, d
