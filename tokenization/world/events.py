"""The event log: who did what, which way, when, read off the scene's geometry and pixels."""

from __future__ import annotations

import dataclasses

import numpy as np

from tokenization.world.render import Rendered
from tokenization.world.scenes import ObjectSpec, Scene, Shot, screen_path

CAMERA = 0
"""The `object` of events that no object makes: cuts, pans and zooms."""


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happens in a video.

    Attributes:
      object: who: an object's id, or `CAMERA`.
      colour: of that object, or empty.
      shape: of that object, or empty.
      size: of that object, or empty.
      what: moves, enters, leaves, rotates, crosses, cut, pans or zooms.
      direction: on the screen. moves: left, right, up, down; enters and leaves: the side left,
        right, top, bottom; rotates: clockwise, counterclockwise; crosses: in front of,
        behind; pans: where the camera goes; zooms: in, out.
      start: first frame.
      stop: the frame after the last.
      other: the object that is crossed, else 0.
      count: how many objects are seen between start and stop.
    """

    object: int
    colour: str
    shape: str
    size: str
    what: str
    direction: str
    start: int
    stop: int
    other: int = 0
    count: int = 0


def events(scene: Scene, rendered: Rendered) -> tuple[Event, ...]:
    """Lists a scene's events in order of time.

    An object moves if it moves in the world; which way is told from the screen. Two objects
    cross where one hides at least a tenth of the other at some frame; who moves faster on the
    screen does the crossing.
    """
    visible = rendered.visible() > 0
    whole = rendered.whole()
    found: list[Event] = []
    for shot in scene.shots:
        found += _camera_events(shot)
        for spec in shot.objects:
            found += _object_events(spec, shot, whole[:, spec.id] > 0)
        found += _crossings(shot, rendered, whole)
    counted = [
        dataclasses.replace(event, count=int(visible[event.start : event.stop, 1:].any(0).sum()))
        for event in found
    ]
    return tuple(sorted(counted, key=lambda event: (event.start, event.object, event.what)))


def _camera_events(shot: Shot) -> list[Event]:
    found = []
    if shot.start:
        found.append(Event(CAMERA, "", "", "", "cut", "", shot.start, shot.start + 1))
    if any(shot.camera.pan):
        way = _heading(np.asarray(shot.camera.pan))
        found.append(Event(CAMERA, "", "", "", "pans", way, shot.start, shot.stop))
    if shot.camera.zoom != 1:
        way = "in" if shot.camera.zoom > 1 else "out"
        found.append(Event(CAMERA, "", "", "", "zooms", way, shot.start, shot.stop))
    return found


def _object_events(spec: ObjectSpec, shot: Shot, in_frame: np.ndarray) -> list[Event]:
    """Events of one object alone; `in_frame[t]` tells whether it is inside the screen."""
    frames = np.flatnonzero(in_frame)
    if not frames.size:
        return []
    first, last = int(frames[0]), int(frames[-1])
    centres, _ = screen_path(spec, shot)

    def event(what: str, direction: str, start: int, stop: int) -> Event:
        return Event(spec.id, spec.colour, spec.shape, spec.size, what, direction, start, stop)

    found = []
    if any(spec.velocity):
        way = _heading(centres[last - shot.start] - centres[first - shot.start])
        found.append(event("moves", way, first, last + 1))
    # While it crosses the edge, an object's area grows or shrinks: that is when it enters.
    inside = _wholly_inside(spec, shot)
    if first > shot.start:
        arrived = inside[inside >= first]
        stop = int(arrived[0]) if arrived.size else last
        found.append(event("enters", _side(centres[0], shot), first, stop + 1))
    if last < shot.stop - 1:
        gone = inside[inside <= last]
        start = int(gone[-1]) if gone.size else first
        found.append(event("leaves", _side(centres[-1], shot), start, last + 1))
    if spec.spin:
        way = "clockwise" if spec.spin > 0 else "counterclockwise"
        found.append(event("rotates", way, first, last + 1))
    return found


def _wholly_inside(spec: ObjectSpec, shot: Shot) -> np.ndarray:
    """Frames in which the object's bounding circle lies inside the screen."""
    centres, radii = screen_path(spec, shot)
    extent = 2 * np.asarray(shot.camera.centre)
    inside = (centres >= radii[:, None]) & (centres <= extent - radii[:, None])
    return shot.start + np.flatnonzero(inside.all(1))


def _crossings(shot: Shot, rendered: Rendered, whole: np.ndarray) -> list[Event]:
    found = []
    frames = np.arange(shot.start, shot.stop)
    for back, behind in enumerate(shot.objects):
        for front in shot.objects[back + 1 :]:
            taken = rendered.hidden[frames, behind.id, front.id]
            smaller = np.minimum(whole[frames, behind.id], whole[frames, front.id])
            if not (taken > 0.1 * np.maximum(smaller, 1)).any():
                continue
            touching = frames[taken > 0]
            who, other, way = front, behind, "in front of"
            if _speed(behind, shot) > _speed(front, shot):
                who, other, way = behind, front, "behind"
            found.append(
                Event(
                    who.id,
                    who.colour,
                    who.shape,
                    who.size,
                    "crosses",
                    way,
                    int(touching[0]),
                    int(touching[-1]) + 1,
                    other.id,
                )
            )
    return found


def _speed(spec: ObjectSpec, shot: Shot) -> float:
    centres, _ = screen_path(spec, shot)
    return float(np.linalg.norm(centres[-1] - centres[0]))


def _heading(step: np.ndarray) -> str:
    if abs(step[0]) >= abs(step[1]):
        return "right" if step[0] > 0 else "left"
    return "down" if step[1] > 0 else "up"


def _side(centre: np.ndarray, shot: Shot) -> str:
    """The side of the frame beyond which, or nearest to which, a point lies."""
    width, height = 2 * np.asarray(shot.camera.centre)
    beyond = {
        "left": -centre[0],
        "right": centre[0] - width,
        "top": -centre[1],
        "bottom": centre[1] - height,
    }
    return max(beyond, key=lambda side: beyond[side])
