"""Clips that benchmarks of extraction make for themselves, of the procedural world."""

from __future__ import annotations

from pathlib import Path

from tokenization.manifest import read_entries
from tokenization.world import WorldSettings, write_split

SHOWN = 6  # frames of a clip for each one sampled: five between each two, the most that are read
_QUICKEST = 256  # frames: what moves in longer clips moves slower, or it would leave the picture


def made_clip(folder: Path | str, sampled: int, width: int) -> Path:
    """A clip of 16:9 and 24 frames a second, of which so many frames will be sampled.

    It is `SHOWN` times as long, so that the flow tracker reads as many frames between as it does
    of any video: a clip as long as its samples would flatter the cost of extraction.

    Args:
      folder: for the file.
      sampled: frames.
      width: pixels.
    """
    frames = SHOWN * sampled
    pace = min(1.0, _QUICKEST / frames)
    world = WorldSettings(
        width=width, height=width * 9 // 16, frames=frames, fps=24, min_objects=3, max_objects=5,
        moving_extras=0.8, sizes=(0.08, 0.12, 0.17), object_texture=0.25, background_texture=0.5,
        min_speed=0.02 * pace, max_speed=0.04 * pace, rotation_speed=10 * pace,
        camera_pan=0.004 * pace, camera_zoom=0.004 * pace,
    )  # fmt: skip
    folder = Path(folder) / f"{sampled}x{width}"
    return Path(read_entries(write_split(folder, "test", 1, world, progress=False))[0].path)
