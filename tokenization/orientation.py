"""How decoded frames are to be shown: quarter turns and mirroring from their metadata."""

from __future__ import annotations

import dataclasses

import av
import numpy as np
from jaxtyping import UInt8

# Display matrices (a, b, c, d) of turns by 0, 90, 180 and 270 degrees counterclockwise.
_QUARTER_TURNS = ((1, 0, 0, 1), (0, -1, 1, 0), (-1, 0, 0, -1), (0, 1, -1, 0))


@dataclasses.dataclass(frozen=True)
class Orientation:
    """A display matrix: the stored pixel (x, y) is shown at (ax + cy, bx + dy)."""

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Orientation:
        """Of a frame, and of the others of its stream: it is the container's.

        To be asked of one frame alone: PyAV ties frames whose side data is read into a reference
        cycle, so that their pixels stay in memory until Python looks for such.
        """
        try:
            data = frame.side_data.get("DISPLAYMATRIX")
        except ValueError:
            # PyAV cannot list the EXIF data of a photo, but still knows its angle.
            return cls(*_QUARTER_TURNS[round(frame.rotation / 90) % 4])
        if data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
        return cls(a, b, c, d)

    @property
    def swaps_sides(self) -> bool:
        """Whether what is stored as width is shown as height."""
        return abs(self.b) > abs(self.a)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) as shown, in pixels, of what is stored in this size."""
        return (height, width) if self.swaps_sides else (width, height)

    def apply(self, rgb: UInt8[np.ndarray, "stored_h stored_w 3"]) -> UInt8[np.ndarray, "h w 3"]:
        """Turns and mirrors pixels of a frame, at any scale."""
        flip_x, flip_y = self.a < 0, self.d < 0
        if self.swaps_sides:
            rgb = rgb.swapaxes(0, 1)
            flip_x, flip_y = self.c < 0, self.b < 0
        return np.ascontiguousarray(rgb[:: -1 if flip_y else 1, :: -1 if flip_x else 1])
