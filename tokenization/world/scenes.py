"""What happens in a clip of the procedural world: objects, their paths, backgrounds, a camera.

Nothing here draws. Positions are pixels, x to the right and y downwards; a time is a frame
index. The camera moves over the world, and an object's path is chosen on the *screen* and
then carried into the world through the camera, so that "moves left" is left as seen by the
viewer whatever the camera does. Objects that only rest or spin stay in the world, and drift
on the screen against the pan.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 36, 36),
    "orange": (240, 130, 20),
    "yellow": (236, 218, 40),
    "green": (36, 160, 52),
    "cyan": (40, 205, 214),
    "blue": (36, 66, 214),
    "purple": (128, 44, 190),
    "pink": (244, 110, 184),
}
"""Named object colours, RGB. Backgrounds are muted, so these names stay visible."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
SIZES = ("small", "medium", "large")
SPINNING_SHAPES = ("square", "triangle", "star", "cross")
"""Shapes whose rotation shows in the outline."""
OBJECT_TEXTURES = ("stripes", "checks", "dots", "speckle")
BACKGROUNDS = ("striped", "checkered", "dotted", "noisy", "cloudy", "brick")

Verb = Literal["moves", "enters", "leaves", "spins", "rests"]
Relation = Literal["in front of", "behind"]


@dataclasses.dataclass(frozen=True)
class WorldSettings:
    """What a procedural video looks like. Lengths are fractions of the shorter side.

    Attributes:
      width: pixels, even (as 4:2:0 chroma asks).
      height: pixels, even.
      frames: rendered frames in a video.
      fps: frames a second in the file.
      min_objects: fewest objects in a shot.
      max_objects: most objects in a shot; each has a colour of its own.
      sizes: radii of small, medium and large objects.
      min_travel: what a mover crosses at least during a shot, as seen on the screen.
      min_speed: screen motion a frame.
      max_speed: screen motion a frame.
      rotation_speed: most degrees a frame; 0 stops all rotation.
      in_sight: no object enters or leaves: in a short video one that does is hardly seen whole.
      moving_extras: probability that an object that no caption names moves instead of resting.
      object_texture: contrast of the objects' texture, 0 (flat) to 1.
      background_texture: contrast of the background's texture, 0 (flat) to 1.
      camera_pan: most camera motion a frame; each shot pans at half to all of it.
      camera_zoom: most relative zoom a frame, in or out.
      cut_probability: how often a video has a cut, after which everything is new.
      crf: H.264 quality, 0 (lossless) to 51.

    Raises:
      ValueError: a value out of its range, or sizes that leave a mover no room.
    """

    width: int = 128
    height: int = 128
    frames: int = 16
    fps: int = 8
    min_objects: int = 1
    max_objects: int = 3
    sizes: tuple[float, float, float] = (0.09, 0.14, 0.2)
    min_travel: float = 0.3
    min_speed: float = 0.02
    max_speed: float = 0.04
    rotation_speed: float = 10.0
    in_sight: bool = False
    moving_extras: float = 0.0
    object_texture: float = 0.25
    background_texture: float = 0.5
    camera_pan: float = 0.004
    camera_zoom: float = 0.004
    cut_probability: float = 0.15
    crf: int = 20

    def __post_init__(self) -> None:
        checks = {
            "width": self.width >= 32 and self.width % 2 == 0,
            "height": self.height >= 32 and self.height % 2 == 0,
            "frames": self.frames >= (8 if self.cut_probability else 4),
            "fps": self.fps >= 1,
            "min_objects": 1 <= self.min_objects <= self.max_objects,
            "max_objects": self.max_objects <= len(COLOURS),
            "sizes": len(self.sizes) == len(SIZES)
            and 0 < self.sizes[0] < self.sizes[1] < self.sizes[2],
            "min_travel": 0 <= self.min_travel <= 1,
            "min_speed": 0 < self.min_speed <= self.max_speed,
            "rotation_speed": 0 <= self.rotation_speed <= 30,
            "moving_extras": 0 <= self.moving_extras <= 1,
            "object_texture": 0 <= self.object_texture <= 1,
            "background_texture": 0 <= self.background_texture <= 1,
            "camera_pan": 0 <= self.camera_pan <= 0.05,
            "camera_zoom": 0 <= self.camera_zoom <= 0.02,
            "cut_probability": 0 <= self.cut_probability <= 1,
            "crf": 0 <= self.crf <= 51,
        }
        for name, holds in checks.items():
            if not holds:
                raise ValueError(
                    f"WorldSettings.{name} = {getattr(self, name)!r} is out of range; "
                    "see the docstring of WorldSettings"
                )
        largest = 2 * self.sizes[2] * (1 + self.camera_zoom) ** (self.frames / 2)
        if largest + self.min_travel > 0.95:
            raise ValueError(
                f"WorldSettings.sizes: objects that are up to {largest:.2f} of the frame wide "
                f"cannot cross {self.min_travel} of it inside; lower sizes, min_travel or "
                "camera_zoom"
            )

    @property
    def side(self) -> int:
        """The shorter side in pixels, the unit of all lengths."""
        return min(self.width, self.height)


@dataclasses.dataclass(frozen=True)
class Camera:
    """A pan and a zoom at constant speed; world and screen agree at time `middle`.

    Attributes:
      centre: the fixed point of the zoom, pixels.
      pan: how far the camera moves over the world in a frame, pixels (x, y).
      zoom: factor a frame; above 1 things grow.
      middle: the middle of the shot, in frames.
    """

    centre: tuple[float, float]
    pan: tuple[float, float]
    zoom: float
    middle: float

    def scale(self, time: Float[np.ndarray, " t"]) -> Float[np.ndarray, " t"]:
        """Screen pixels a world pixel."""
        return self.zoom ** (time - self.middle)

    def to_screen(
        self, world: Float[np.ndarray, "t 2"], time: Float[np.ndarray, " t"]
    ) -> Float[np.ndarray, "t 2"]:
        """Where world points are seen, one a time."""
        shift = np.asarray(self.pan) * (time - self.middle)[:, None]
        return self.centre + self.scale(time)[:, None] * (world - self.centre - shift)

    def to_world(
        self, screen: Float[np.ndarray, "t 2"], time: Float[np.ndarray, " t"]
    ) -> Float[np.ndarray, "t 2"]:
        """The inverse of `to_screen`."""
        shift = np.asarray(self.pan) * (time - self.middle)[:, None]
        return self.centre + shift + (screen - self.centre) / self.scale(time)[:, None]


@dataclasses.dataclass(frozen=True)
class Background:
    """A textured plane: one of `BACKGROUNDS`, and the seed of its tones and details."""

    kind: str
    seed: int


@dataclasses.dataclass(frozen=True)
class ObjectSpec:
    """One object of a shot.

    Attributes:
      id: label in the ground truth, unique in the video, from 1.
      colour: a key of `COLOURS`.
      shape: one of `SHAPES`.
      size: one of `SIZES`.
      texture: one of `OBJECT_TEXTURES`.
      seed: of the texture's details.
      radius: pixels in the world.
      verb: what it does.
      direction: on the screen: left, right, up, down (moves), the side of the frame: left,
        right, top, bottom (enters, leaves), or empty.
      start: world position at the shot's first frame, pixels (x, y).
      velocity: world pixels a frame (x, y).
      angle: degrees at the shot's first frame.
      spin: degrees a frame; positive is clockwise on the screen.
    """

    id: int
    colour: str
    shape: str
    size: str
    texture: str
    seed: int
    radius: float
    verb: Verb
    direction: str
    start: tuple[float, float]
    velocity: tuple[float, float]
    angle: float
    spin: float


@dataclasses.dataclass(frozen=True)
class Shot:
    """What the camera sees between two cuts.

    Attributes:
      start: first frame.
      stop: the frame after the last.
      background: behind all objects.
      camera: over the background.
      objects: from back to front.
      actors: ids of the objects that the caption names, in its order.
      relation: how the first actor passes the second, if it does.
    """

    start: int
    stop: int
    background: Background
    camera: Camera
    objects: tuple[ObjectSpec, ...]
    actors: tuple[int, ...]
    relation: Relation | None = None

    def times(self) -> Float[np.ndarray, " t"]:
        """The shot's frame indices in the video."""
        return np.arange(self.start, self.stop, dtype=np.float64)

    def acting(self) -> tuple[ObjectSpec, ...]:
        """The objects that the caption names, in its order."""
        by_id = {spec.id: spec for spec in self.objects}
        return tuple(by_id[number] for number in self.actors)


def screen_path(
    spec: ObjectSpec, shot: Shot
) -> tuple[Float[np.ndarray, "t 2"], Float[np.ndarray, " t"]]:
    """Centre and radius of an object on the screen, pixels, for every frame of the shot."""
    time = shot.times()
    world = np.asarray(spec.start) + (time - shot.start)[:, None] * np.asarray(spec.velocity)
    return shot.camera.to_screen(world, time), spec.radius * shot.camera.scale(time)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A whole video: one shot, or two around a cut."""

    shots: tuple[Shot, ...]

    @property
    def frames(self) -> int:
        """Number of frames."""
        return self.shots[-1].stop

    @property
    def cuts(self) -> tuple[int, ...]:
        """First frame after each cut."""
        return tuple(shot.start for shot in self.shots[1:])

    @property
    def objects(self) -> tuple[ObjectSpec, ...]:
        """All objects, by id."""
        every = (spec for shot in self.shots for spec in shot.objects)
        return tuple(sorted(every, key=lambda spec: spec.id))
