"""Procedural textures: patterns in [-1, 1], tones for backgrounds, outlines for objects."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from tokenization.world.scenes import COLOURS, Background, ObjectSpec


def noise(
    rng: np.random.Generator, height: int, width: int, coarsest: float, octaves: int
) -> Float32[np.ndarray, "h w"]:
    """Fractal value noise in [-1, 1], from blobs of `coarsest` pixels down, halving."""
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        cell = max(coarsest / 2**octave, 1.0)
        shape = (int(np.ceil(height / cell)) + 1, int(np.ceil(width / cell)) + 1)
        grid = rng.uniform(-1, 1, shape).astype(np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) / 1.5**octave
    return total / max(float(np.abs(total).max()), 1e-6)


def _rotated_grid(height: int, width: int, angle: float) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float32)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return x * cos + y * sin, y * cos - x * sin


def _wave(x: np.ndarray, period: float) -> np.ndarray:
    """A square wave with soft flanks of about a pixel."""
    return np.tanh(np.sin(2 * np.pi / period * x) * period / 4)


def _dots(x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    half = period / 2
    return np.tanh(0.6 * half - np.hypot((x + half) % period - half, (y + half) % period - half))


def _bricks(x: np.ndarray, y: np.ndarray, period: float) -> np.ndarray:
    row = np.floor(y / period)
    across = (x + row % 2 * period) % (2 * period)
    mortar = np.minimum(
        np.minimum(across, 2 * period - across), np.minimum(y % period, -y % period)
    )
    return np.tanh(mortar - 0.1 * period)


def _clouds(rng: np.random.Generator, height: int, width: int, side: int) -> np.ndarray:
    """A linear gradient under a few soft blobs."""
    x, _ = _rotated_grid(height, width, rng.uniform(0, 2 * np.pi))
    total = (x - x.min()) / max(float(np.ptp(x)), 1e-6) - 0.5
    count = int(np.ceil(8 * height * width / side**2))
    grid_y, grid_x = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(count):
        at_x, at_y = rng.uniform(0, width), rng.uniform(0, height)
        radius = side * rng.uniform(0.06, 0.16)
        distance = (grid_x - at_x) ** 2 + (grid_y - at_y) ** 2
        total += rng.choice([-1, 1]) * np.exp(-distance / (2 * radius**2))
    return np.clip(total, -1, 1)


def background(
    spec: Background, height: int, width: int, side: int, strength: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Draws a background of `height` x `width` pixels for a screen whose shorter side is `side`.

    Two muted tones are mixed by the pattern; fine noise lies over all kinds, so that motion
    can be seen along stripes as well.
    """
    rng = np.random.default_rng(spec.seed)
    period = side * rng.uniform(0.14, 0.22)
    x, y = _rotated_grid(height, width, rng.uniform(-np.pi / 4, np.pi / 4))
    match spec.kind:
        case "striped":
            pattern = _wave(x, period)
        case "checkered":
            pattern = _wave(x, 1.4 * period) * _wave(y, 1.4 * period)
        case "dotted":
            pattern = _dots(x, y, period)
        case "noisy":
            pattern = 1.5 * noise(rng, height, width, side * 0.05, 3)
        case "cloudy":
            pattern = _clouds(rng, height, width, side)
        case "brick":
            pattern = _bricks(x, y, period)
        case _:
            raise ValueError(f"unknown background {spec.kind!r}")
    value = rng.uniform(0.3, 0.75)
    contrast = strength * 0.22 * rng.choice([-1, 1])
    saturation = rng.uniform(0.05, 0.25)
    hues = rng.uniform(0, 360) + np.array([0.0, 40.0])
    tones = np.stack(
        [
            hues % 360,
            np.full(2, saturation),
            np.clip([value - contrast, value + contrast], 0.08, 0.92),
        ],
        -1,
    ).astype(np.float32)
    dark, light = cv2.cvtColor(tones[None], cv2.COLOR_HSV2RGB)[0] * 255
    mix = np.clip(0.5 + 0.5 * pattern, 0, 1)[..., None].astype(np.float32)
    grain = noise(rng, height, width, side * 0.08, 4)[..., None] * (40 * strength)
    return np.clip(dark + (light - dark) * mix + grain, 0, 255).astype(np.uint8)


def sprite(spec: ObjectSpec, radius: int, strength: float) -> UInt8[np.ndarray, "h w 3"]:
    """The object's textured surface: a square of 2 * radius + 1 pixels, before it is cut out."""
    rng = np.random.default_rng(spec.seed)
    size = 2 * radius + 1
    period = max(radius * rng.uniform(0.5, 0.8), 4.0)
    x, y = _rotated_grid(size, size, rng.uniform(0, np.pi))
    match spec.texture:
        case "stripes":
            pattern = _wave(x, period)
        case "checks":
            pattern = _wave(x, 1.5 * period) * _wave(y, 1.5 * period)
        case "dots":
            pattern = _dots(x, y, period)
        case "speckle":
            pattern = noise(rng, size, size, period / 2, 2)
        case _:
            raise ValueError(f"unknown object texture {spec.texture!r}")
    grain = noise(rng, size, size, period, 3)
    shade = 1 + strength * (0.7 * pattern + 0.3 * grain)
    colour = np.asarray(COLOURS[spec.colour], np.float32)
    return np.clip(colour * shade[..., None], 0, 255).astype(np.uint8)


def _regular(count: int, radii: np.ndarray | float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count - np.pi / 2
    return np.stack([np.cos(angles), np.sin(angles)], -1) * np.reshape(radii, (-1, 1))


def _plus(half_width: float, length: float) -> np.ndarray:
    a, b = half_width, length
    corners = [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a)]
    return np.array(corners + [(-x, -y) for x, y in corners])


OUTLINES: dict[str, tuple[np.ndarray, ...]] = {
    "circle": (_regular(64, 0.86),),
    "square": (np.array([(-0.7, -0.7), (0.7, -0.7), (0.7, 0.7), (-0.7, 0.7)]),),
    "triangle": (_regular(3, 1.0),),
    "star": (_regular(10, np.array([1.0, 0.45] * 5)),),
    "ring": (_regular(64, 0.94), _regular(64, 0.5)),
    "cross": (_plus(0.3, 0.94),),
}
"""Closed polygons inside the unit circle; what an odd number of them covers is the shape."""
