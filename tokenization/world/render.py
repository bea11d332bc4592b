"""Scene -> frames and their ground-truth labels.

Colours are anti-aliased by coverage, from a mask drawn four times as fine; labels are hard:
an object owns a pixel that it covers by half or more, the frontmost one wins. There is no
motion blur.
"""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8, UInt16

from tokenization.world import textures
from tokenization.world.scenes import Scene, Shot, WorldSettings, screen_path

_FINE = 4


@dataclasses.dataclass(frozen=True, eq=False)
class Rendered:
    """A drawn scene.

    Attributes:
      frames: RGB.
      labels: object ids; 0 is the background.
      hidden: hidden[t, i, j] = pixels of object i with object j directly in front of it.
    """

    frames: UInt8[np.ndarray, "t h w 3"]
    labels: UInt16[np.ndarray, "t h w"]
    hidden: Int32[np.ndarray, "t n n"]

    def visible(self) -> Int32[np.ndarray, "t n"]:
        """Pixels that each object owns, by id (column 0 is the background)."""
        count = self.hidden.shape[1]
        areas = [np.bincount(frame.reshape(-1), minlength=count) for frame in self.labels]
        return np.stack(areas).astype(np.int32)

    def whole(self) -> Int32[np.ndarray, "t n"]:
        """Pixels that each object would own if it were in front of all others."""
        return self.visible() + self.hidden.sum(2, dtype=np.int32)


def render(scene: Scene, settings: WorldSettings) -> Rendered:
    """Draws all frames of a scene; the same scene and settings give the same pixels."""
    height, width = settings.height, settings.width
    frames = np.empty((scene.frames, height, width, 3), np.uint8)
    labels = np.zeros((scene.frames, height, width), np.uint16)
    count = 1 + len(scene.objects)
    hidden = np.zeros((scene.frames, count, count), np.int32)
    for shot in scene.shots:
        _draw_background(frames, shot, settings)
        _draw_objects(frames, labels, hidden, shot, settings)
    # The background is never an object that something hides.
    hidden[:, 0] = 0
    return Rendered(frames, labels, hidden)


def _draw_background(frames: np.ndarray, shot: Shot, settings: WorldSettings) -> None:
    """Fills the shot's frames from one plane, large enough for all that the camera sees."""
    width, height = settings.width, settings.height
    time = shot.times()
    corners = np.array([(0, 0), (width, 0), (0, height), (width, height)], np.float64)
    seen = np.concatenate(
        [shot.camera.to_world(np.repeat(corner[None], time.size, 0), time) for corner in corners]
    )
    low = np.floor(seen.min(0)).astype(int) - 2
    high = np.ceil(seen.max(0)).astype(int) + 2
    plane = textures.background(
        shot.background,
        int(high[1] - low[1]),
        int(high[0] - low[0]),
        settings.side,
        settings.background_texture,
    )
    origin = shot.camera.to_world(np.zeros((time.size, 2)), time) - low
    for i, scale in enumerate(shot.camera.scale(time)):
        # Pixel centres lie at half integers; warpAffine counts from the centre of pixel 0.
        offset = origin[i] + 0.5 / scale - 0.5
        to_plane = np.array([[1 / scale, 0, offset[0]], [0, 1 / scale, offset[1]]])
        frames[shot.start + i] = cv2.warpAffine(
            plane,
            to_plane,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )


def _draw_objects(
    frames: np.ndarray,
    labels: np.ndarray,
    hidden: np.ndarray,
    shot: Shot,
    settings: WorldSettings,
) -> None:
    """Draws the shot's objects over its frames, from back to front."""
    count = hidden.shape[1]
    for spec in shot.objects:
        centres, radii = screen_path(spec, shot)
        half = int(np.ceil(radii.max())) + 1
        surface = textures.sprite(spec, half, settings.object_texture)
        for i, (centre, radius) in enumerate(zip(centres, radii, strict=True)):
            frame = shot.start + i
            corner = np.floor(centre - radius).astype(int) - 1
            size = int(np.ceil(2 * radius)) + 3
            left, top = np.maximum(corner, 0)
            right, bottom = np.minimum(corner + size, (settings.width, settings.height))
            if left >= right or top >= bottom:
                continue
            angle = spec.angle + i * spec.spin
            cover = _coverage(spec.shape, centre - corner, radius, angle, size)
            # The surface turns and grows with the object, about its own centre.
            turn = cv2.getRotationMatrix2D((half, half), -angle, radius / (half - 1))
            turn[:, 2] += centre - corner - 0.5 - half
            paint = cv2.warpAffine(surface, turn, (size, size), borderMode=cv2.BORDER_REPLICATE)
            inside = np.s_[
                top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]
            ]
            where = np.s_[frame, top:bottom, left:right]
            cover, paint = cover[inside], paint[inside]
            under = frames[where].astype(np.float32)
            mixed = under + (paint - under) * cover[..., None]
            frames[where] = np.rint(mixed).astype(np.uint8)
            owned = cover >= 0.5
            hidden[frame, :, spec.id] += np.bincount(labels[where][owned], minlength=count)
            labels[where][owned] = spec.id


def _coverage(
    shape: str, centre: Float[np.ndarray, " 2"], radius: float, angle: float, size: int
) -> Float32[np.ndarray, "size size"]:
    """The share of each pixel of a `size` x `size` tile that a shape covers."""
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    contours = [
        np.rint(((outline * radius) @ matrix + centre) * _FINE - 0.5).astype(np.int32)
        for outline in textures.OUTLINES[shape]
    ]
    fine = np.zeros((size * _FINE, size * _FINE), np.uint8)
    cv2.fillPoly(fine, contours, 255)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)
