"""Draws a scene from a random generator.

A shot has one or two *actors*, which the caption names, and extras behind them, which it does
not. Two actors either keep apart or one passes the other, in front of it or behind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from jaxtyping import Float

from tokenization.world.scenes import (
    BACKGROUNDS,
    COLOURS,
    OBJECT_TEXTURES,
    SHAPES,
    SIZES,
    SPINNING_SHAPES,
    Background,
    Camera,
    ObjectSpec,
    Relation,
    Scene,
    Shot,
    Verb,
    WorldSettings,
    screen_path,
)

T = TypeVar("T")

DIRECTIONS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
SIDES = {"left": "left", "right": "right", "up": "top", "down": "bottom"}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}
MOVEMENTS: tuple[Verb, ...] = ("moves", "enters", "leaves")
ATTEMPTS = 200


@dataclasses.dataclass(frozen=True)
class _Path:
    """Where an object is seen at the first and the last frame of its shot, pixels."""

    verb: Verb
    direction: str
    first: Float[np.ndarray, " 2"]
    last: Float[np.ndarray, " 2"]


def sample_scene(rng: np.random.Generator, settings: WorldSettings) -> Scene:
    """Draws a scene; the same generator state and settings give the same scene.

    Raises:
      ValueError: settings so tight that two actors find no room.
    """
    frames = settings.frames
    if rng.random() >= settings.cut_probability:
        stage = _empty_shot(rng, settings, 0, frames, BACKGROUNDS)
        return Scene((_fill(rng, settings, stage, first_id=1, most_actors=2),))
    cut = int(rng.integers(frames * 3 // 8, frames * 5 // 8 + 1))
    stage = _empty_shot(rng, settings, 0, cut, BACKGROUNDS)
    before = _fill(rng, settings, stage, first_id=1, most_actors=1)
    others = [kind for kind in BACKGROUNDS if kind != before.background.kind]
    stage = _empty_shot(rng, settings, cut, frames, others)
    after = _fill(rng, settings, stage, first_id=len(before.objects) + 1, most_actors=1)
    return Scene((before, after))


def _empty_shot(
    rng: np.random.Generator,
    settings: WorldSettings,
    start: int,
    stop: int,
    backgrounds: Sequence[str],
) -> Shot:
    background = Background(_choose(rng, backgrounds), int(rng.integers(2**31)))
    return Shot(start, stop, background, _sample_camera(rng, settings, start, stop), (), ())


def _fill(
    rng: np.random.Generator,
    settings: WorldSettings,
    shot: Shot,
    *,
    first_id: int,
    most_actors: int,
) -> Shot:
    """Puts objects into an empty shot."""
    for _ in range(ATTEMPTS):
        filled = _try_to_fill(rng, settings, shot, first_id, most_actors)
        if filled is not None:
            return filled
    raise ValueError(
        f"no room for two actors in a {settings.width}x{settings.height} frame after {ATTEMPTS} "
        f"attempts; lower WorldSettings.sizes ({settings.sizes}) or max_objects"
    )


def _try_to_fill(
    rng: np.random.Generator,
    settings: WorldSettings,
    shot: Shot,
    first_id: int,
    most_actors: int,
) -> Shot | None:
    """A filled shot, or None where its two actors hide one another."""
    count = int(rng.integers(settings.min_objects, settings.max_objects + 1))
    actors = int(rng.integers(1, min(count, most_actors) + 1))
    passing = actors == 2 and rng.random() < 0.4
    colours = [str(colour) for colour in rng.permutation(list(COLOURS))[:count]]

    sizes = [_choose(rng, SIZES) for _ in range(actors)]
    if passing:
        paths = _passing_paths(rng, settings, shot, sizes)
        if paths is None:
            return None
    else:
        verbs = [*_movements(settings), *(("spins",) if settings.rotation_speed else ())]
        paths = [_sample_path(rng, settings, shot, size, _choose(rng, verbs)) for size in sizes]
    objects = [
        _make_object(rng, settings, shot, first_id + i, colours[i], sizes[i], paths[i])
        for i in range(actors)
    ]
    if actors == 2 and not passing and _touch(objects[0], objects[1], shot):
        return None
    for i in range(actors, count):
        objects.append(_sample_extra(rng, settings, shot, first_id + i, colours[i], objects))

    # Extras lie behind the actors: what the caption names is seen.
    in_front = objects[:actors]
    relation: Relation | None = None
    if passing:
        relation = "in front of" if rng.random() < 0.5 else "behind"
    if relation == "in front of":
        in_front.reverse()
    return dataclasses.replace(
        shot,
        objects=(*objects[actors:], *in_front),
        actors=tuple(spec.id for spec in objects[:actors]),
        relation=relation,
    )


def _movements(settings: WorldSettings) -> tuple[Verb, ...]:
    """What objects do that change places."""
    return MOVEMENTS[:1] if settings.in_sight else MOVEMENTS


def _sample_extra(
    rng: np.random.Generator,
    settings: WorldSettings,
    shot: Shot,
    number: int,
    colour: str,
    others: list[ObjectSpec],
) -> ObjectSpec:
    """An object that no caption names: one that moves anywhere, or rests aside if there is room."""
    if rng.random() < settings.moving_extras:
        size, verb = _choose(rng, SIZES), _choose(rng, _movements(settings))
        path = _sample_path(rng, settings, shot, size, verb)
        return _make_object(rng, settings, shot, number, colour, size, path)
    for _ in range(20):
        size = _choose(rng, SIZES[:2])
        path = _sample_path(rng, settings, shot, size, "rests")
        extra = _make_object(rng, settings, shot, number, colour, size, path)
        if not any(_touch(extra, other, shot) for other in others):
            break
    return extra


def _sample_camera(
    rng: np.random.Generator, settings: WorldSettings, start: int, stop: int
) -> Camera:
    angle = rng.uniform(0, 2 * np.pi)
    speed = settings.camera_pan * settings.side * rng.uniform(0.5, 1)
    zoom = settings.camera_zoom * rng.uniform(0.5, 1) * rng.choice([-1, 1])
    return Camera(
        centre=(settings.width / 2, settings.height / 2),
        pan=(float(speed * np.cos(angle)), float(speed * np.sin(angle))),
        zoom=float(1 + zoom),
        middle=(start + stop - 1) / 2,
    )


def _radius(settings: WorldSettings, size: str) -> float:
    return settings.sizes[SIZES.index(size)] * settings.side


def _largest_radius(settings: WorldSettings, shot: Shot, size: str) -> float:
    """On the screen, at the end of the shot where the zoom shows it largest."""
    return _radius(settings, size) * float(shot.camera.scale(shot.times()).max())


def _travel(rng: np.random.Generator, settings: WorldSettings, shot: Shot) -> float:
    """Pixels that a mover crosses on the screen."""
    speed = rng.uniform(settings.min_speed, settings.max_speed)
    fraction = max(speed * (shot.stop - shot.start - 1), settings.min_travel)
    return fraction * settings.side


def _sample_path(
    rng: np.random.Generator, settings: WorldSettings, shot: Shot, size: str, verb: Verb
) -> _Path:
    """A straight path on the screen, along one side of the frame with a slight slant."""
    extent = np.array([settings.width, settings.height], np.float64)
    radius = _largest_radius(settings, shot, size)
    low, high = np.full(2, radius + 1), extent - radius - 1
    if verb in ("spins", "rests"):
        centre = rng.uniform(low, high)
        return _Path(verb, "", centre, centre)

    direction = _choose(rng, tuple(DIRECTIONS))
    axis = 0 if DIRECTIONS[direction][0] else 1
    sign = DIRECTIONS[direction][axis]
    travel = _travel(rng, settings, shot)
    first, last = np.empty(2), np.empty(2)
    if verb == "moves":
        travel = min(travel, high[axis] - low[axis])
        first[axis] = low[axis] + rng.random() * (high[axis] - travel - low[axis])
        last[axis] = first[axis] + travel
    else:
        first[axis] = -radius - 1
        last[axis] = np.clip(first[axis] + travel, low[axis], high[axis])
    if sign < 0:
        first[axis], last[axis] = extent[axis] - first[axis], extent[axis] - last[axis]
    across = 1 - axis
    first[across] = rng.uniform(low[across], high[across])
    slant = 0.15 * abs(last[axis] - first[axis])
    last[across] = np.clip(first[across] + rng.uniform(-slant, slant), low[across], high[across])

    if verb == "enters":
        return _Path(verb, SIDES[OPPOSITE[direction]], first, last)
    if verb == "leaves":
        return _Path(verb, SIDES[OPPOSITE[direction]], last, first)
    return _Path(verb, direction, first, last)


def _passing_paths(
    rng: np.random.Generator, settings: WorldSettings, shot: Shot, sizes: list[str]
) -> list[_Path] | None:
    """A mover that passes a resting or spinning partner in the middle of the shot.

    None where the two are so large that they overlap from start to end.
    """
    extent = np.array([settings.width, settings.height], np.float64)
    mover, partner = (_largest_radius(settings, shot, size) for size in sizes)
    direction = _choose(rng, tuple(DIRECTIONS))
    axis = 0 if DIRECTIONS[direction][0] else 1
    room = extent[axis] - 2 * mover - 2
    travel = min(max(_travel(rng, settings, shot), 1.6 * (mover + partner)), room)
    if travel < 1.6 * (mover + partner):
        return None
    reach = max(mover, partner) + 1
    centre = rng.uniform(np.full(2, reach), extent - reach)
    centre[axis] = mover + 1 + travel / 2 + rng.random() * (room - travel)
    step = np.array(DIRECTIONS[direction], np.float64)
    miss = rng.uniform(-0.3, 0.3) * min(mover, partner) * step[::-1]
    first, last = centre + miss - step * travel / 2, centre + miss + step * travel / 2
    return [_Path("moves", direction, first, last), _Path("rests", "", centre, centre)]


def _make_object(
    rng: np.random.Generator,
    settings: WorldSettings,
    shot: Shot,
    number: int,
    colour: str,
    size: str,
    path: _Path,
) -> ObjectSpec:
    span = shot.stop - shot.start - 1
    if path.verb in ("spins", "rests"):
        # World and screen agree in the middle of the shot, where the path is given.
        start, velocity = path.first, np.zeros(2)
    else:
        ends = shot.camera.to_world(np.stack([path.first, path.last]), shot.times()[[0, -1]])
        start, velocity = ends[0], (ends[1] - ends[0]) / span
    if path.verb == "spins":
        share = rng.uniform(0.7, 1)
    elif path.verb == "rests":
        share = 0.0
    else:
        share = rng.uniform(0.2, 0.6) * (rng.random() < 0.5)
    return ObjectSpec(
        id=number,
        colour=colour,
        shape=_choose(rng, SPINNING_SHAPES if path.verb == "spins" else SHAPES),
        size=size,
        texture=_choose(rng, OBJECT_TEXTURES),
        seed=int(rng.integers(2**31)),
        radius=_radius(settings, size),
        verb=path.verb,
        direction=path.direction,
        start=(float(start[0]), float(start[1])),
        velocity=(float(velocity[0]), float(velocity[1])),
        angle=float(rng.uniform(-20, 20)),
        spin=float(share * settings.rotation_speed * rng.choice([-1, 1])),
    )


def _touch(one: ObjectSpec, other: ObjectSpec, shot: Shot) -> bool:
    """Whether the bounding circles of two objects overlap at some frame."""
    (centre, radius), (centre2, radius2) = screen_path(one, shot), screen_path(other, shot)
    distance = np.linalg.norm(centre - centre2, axis=1)
    return bool((distance < 0.95 * (radius + radius2)).any())


def _choose(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, as it is (NumPy's own choice would turn it into an array scalar)."""
    return options[int(rng.integers(len(options)))]
