"""One stable colour per trajectory id, the same in every picture and on the page.

Hues step by the golden ratio around the OKLCH circle, so neighbouring ids are far apart and
no number of trajectories has to be known beforehand; lightness steps too, by what keeps the
nearest two of the first 40, 80 and 160 colours far apart (a search over steps in OKLab).
Chroma is the largest that sRGB can show, up to a limit. Colour space: B. Ottosson, "A
perceptual color space for image processing", 2020.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, UInt8

NO_TRAJECTORY = (110, 114, 122)

_GOLDEN = (5**0.5 - 1) / 2
_LIGHTNESS_STEP = 0.185
_LIGHTNESS = (0.52, 0.88)
_MAX_CHROMA = 0.19
_FIRST_HUE = 0.68


def _oklch_to_linear_srgb(
    lightness: Float64[np.ndarray, " n"],
    chroma: Float64[np.ndarray, " n"],
    hue: Float64[np.ndarray, " n"],
) -> Float64[np.ndarray, "n 3"]:
    a, b = chroma * np.cos(hue), chroma * np.sin(hue)
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return np.stack(
        [
            4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
            -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
            -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
        ],
        axis=-1,
    )


def palette(n: int) -> UInt8[np.ndarray, "{n}+1 3"]:
    """sRGB colours of ids 0..n; id 0 (no trajectory) is grey.

    A colour depends on its id alone: `palette(n)` begins with `palette(m)` for m < n.
    """
    index = np.arange(n, dtype=np.float64)
    hue = 2 * np.pi * ((index * _GOLDEN + _FIRST_HUE) % 1)
    low, high = _LIGHTNESS
    lightness = low + (high - low) * ((index * _LIGHTNESS_STEP) % 1)
    shown, too_much = np.zeros(n), np.full(n, _MAX_CHROMA)
    for _ in range(12):  # Bisection for the largest chroma inside the sRGB gamut.
        chroma = (shown + too_much) / 2
        linear = _oklch_to_linear_srgb(lightness, chroma, hue)
        inside = ((linear >= 0) & (linear <= 1)).all(axis=-1)
        shown = np.where(inside, chroma, shown)
        too_much = np.where(inside, too_much, chroma)
    linear = np.clip(_oklch_to_linear_srgb(lightness, shown, hue), 0, 1)
    srgb = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    colours = np.rint(255 * srgb).astype(np.uint8)
    return np.concatenate([np.array([NO_TRAJECTORY], np.uint8), colours])
