"""Contact sheets of a pipeline's trajectories beside an annotation, whatever the pipeline is.

Six frames in a row, and three rows: all trajectories, each in its colour, with the outlines of the
annotated objects; the best union of trajectories of each object; and the first masks followed,
where the tracker follows masks. In the last two rows green is right, blue is missed, red too much.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Integer, UInt8, UInt16
from PIL import Image, ImageDraw, ImageFont

from benchmarks.parts.tracking_metrics import Cover
from tokenization.explore import view
from tokenization.explore.colours import palette
from tokenization.resizing import fit

TILES, SIDE, TITLE = 6, 320, 24  # frames shown; pixels of their longer side, and above each row
_RIGHT, _MISSED, _TOO_MUCH = (60, 190, 90), (60, 110, 235), (225, 60, 50)
_PAPER, _INK = (250, 250, 248), (28, 30, 34)


@dataclasses.dataclass(frozen=True)
class Found:
    """What one pipeline made of one sequence.

    Attributes:
      labels: its trajectories; 0 = none.
      covers: of the objects 1..k, in order (`best_cover`).
      followed: objects as the tracker followed them from their first masks; None = it does not.
      j: mean IoU of these.
    """

    labels: UInt16[np.ndarray, "t h w"]
    covers: tuple[Cover, ...]
    followed: Integer[np.ndarray, "t h w"] | None = None
    j: float | None = None


def compose(
    name: str,
    rgb: UInt8[np.ndarray, "t h w 3"],
    objects: Integer[np.ndarray, "t h w"],
    found: Found,
) -> UInt8[np.ndarray, "_ _ 3"]:
    """The sheet as a picture.

    Args:
      name: of pipeline and sequence.
      rgb: sampled frames.
      objects: the annotation; 0 = no object.
      found: in these frames.
    """
    shown = np.linspace(0, len(rgb) - 1, TILES).round().astype(int).tolist()
    colours = palette(int(found.labels.max()))

    def painted(t: int) -> UInt8[np.ndarray, "h w 3"]:
        picture = view.paint(rgb[t], found.labels[t], colours)
        picture[view.boundaries(objects[t])] = (255, 255, 255)
        return picture

    union = united(found.labels, found.covers)
    mean = float(np.mean([cover.union for cover in found.covers])) if found.covers else 0.0
    rows = [
        _row(
            f"{name}: {int(found.labels.max())} trajectories, annotated objects outlined",
            [painted(t) for t in shown],
        ),
        _row(
            f"best union of trajectories, mean IoU {mean:.3f}: green right, blue missed, "
            "red too much",
            [judged(rgb[t], union[t], objects[t]) for t in shown],
        ),
    ]
    if found.followed is not None and found.j is not None:
        followed = found.followed
        rows.append(
            _row(
                f"first masks followed, mean J {found.j:.3f}",
                [judged(rgb[t], followed[t], objects[t]) for t in shown],
            )
        )
    return np.vstack(rows)


def united(
    labels: Integer[np.ndarray, "t h w"], covers: Sequence[Cover]
) -> Integer[np.ndarray, "t h w"]:
    """The object 1..k that each pixel's trajectory is taken for; 0 = none."""
    taken = np.zeros(int(labels.max()) + 1, np.int32)
    for number, cover in enumerate(covers, start=1):
        taken[list(cover.labels)] = number
    return taken[labels]


def judged(
    frame: UInt8[np.ndarray, "h w 3"],
    found: Integer[np.ndarray, "h w"],
    objects: Integer[np.ndarray, "h w"],
) -> UInt8[np.ndarray, "h w 3"]:
    """The frame with what is right, what was missed, and what is taken for another object."""
    picture = frame.copy()

    def tint(where: Bool[np.ndarray, "h w"], colour: tuple[int, int, int]) -> None:
        picture[where] = picture[where] // 2 + np.array(colour, np.uint8) // 2

    right = (found == objects) & (objects > 0)
    too_much = (found > 0) & ~right
    tint(right, _RIGHT)
    tint(too_much, _TOO_MUCH)
    tint((objects > 0) & ~right & ~too_much, _MISSED)
    return picture


def _row(title: str, pictures: Sequence[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "_ _ 3"]:
    height, width = pictures[0].shape[:2]
    size = fit(width, height, SIDE)
    strip = np.hstack([cv2.resize(one, size, interpolation=cv2.INTER_AREA) for one in pictures])
    head = Image.new("RGB", (strip.shape[1], TITLE), _PAPER)
    ImageDraw.Draw(head).text((6, 5), title, _INK, ImageFont.load_default(13))
    return np.vstack([np.asarray(head), strip])
