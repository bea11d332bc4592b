"""One frame cut into small regions that respect its edges, in a few milliseconds."""

from __future__ import annotations

import dataclasses

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Int64, Integer, UInt8

from tokenization.regions import RegionGraph, region_graph
from tokenization.resizing import fit

# Weights of lightness in colours and in greys, and the chroma that parts the two.
_LIGHTNESS, _GREY, _COLOURFUL = 0.4, 0.8, 12.0
_CHROMA, _DARK = 65.0, 25.0


@dataclasses.dataclass(frozen=True, eq=False)
class Superpixels:
    """A frame as a graph of small regions.

    Attributes:
      labels: superpixel of every pixel, 0..n-1; each is 4-connected.
      graph: their areas, neighbours and mean features: 3 of colour (`colour_features`), then
        x and y as fractions of the longer side.
    """

    labels: Int32[np.ndarray, "h w"]
    graph: RegionGraph

    def counts(
        self,
        labels: Integer[np.ndarray, "h w"],
        k: int,
        where: Bool[np.ndarray, "h w"] | None = None,
    ) -> Int64[np.ndarray, "n {k}"]:
        """Pixels that each superpixel shares with each label 0..k-1 (where a mask says so)."""
        n = self.graph.areas.size
        pairs = self.labels.astype(np.int64) * k + labels
        pairs = pairs.reshape(-1) if where is None else pairs[where]
        return np.bincount(pairs, minlength=n * k).reshape(n, k)

    def means(self, *images: np.ndarray) -> Float64[np.ndarray, "n c"]:
        """Mean over each superpixel of each image."""
        flat, n = self.labels.reshape(-1), self.graph.areas.size
        sums = [np.bincount(flat, image.reshape(-1), n) for image in images]
        return np.stack(sums, -1) / self.graph.areas[:, None]


def shrink(rgb: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "_ _ 3"]:
    """Shrinks a frame until neither side is longer than `side`; never enlarges."""
    height, width = rgb.shape[:2]
    size = fit(width, height, side)
    return rgb if size == (width, height) else cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)


def smooth_lab(rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """Bilateral-filtered CIE Lab in 8 bits (lightness 0..255, a and b centred on 128)."""
    lab = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2LAB)
    return cv2.bilateralFilter(lab, 5, 20.0, 3.0)


def colour_features(lab: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w 3"]:
    """Colours whose Euclidean distance is small between lit and shaded parts of one surface.

    Shading scales L* + 16, a* and b* by about one factor (all three go with the cube root of
    intensity), so a* and b* are divided by lightness, and lightness itself weighs less: in greys,
    where it is all there is, twice as much as in colours.
    """
    wide = lab.astype(np.float32)
    lightness = wide[..., 0] * np.float32(100 / 255)
    a, b = wide[..., 1] - 128, wide[..., 2] - 128
    weight = _LIGHTNESS + (_GREY - _LIGHTNESS) * np.exp(-np.hypot(a, b) / _COLOURFUL)
    gain = _CHROMA / (lightness + _DARK)
    return np.stack([weight * lightness, a * gain, b * gain], -1)


def superpixels(lab: UInt8[np.ndarray, "h w 3"], count: int) -> Superpixels:
    """Cuts a frame into about `count` 4-connected regions (fewer if it has fewer pixels).

    A marker-based watershed (Meyer 1992) floods the frame from the flattest pixel of each
    cell of a grid.

    Args:
      lab: a frame from `smooth_lab`.
      count: how many regions to aim for.
    """
    height, width = lab.shape[:2]
    step = max(1, round((height * width / count) ** 0.5))
    # The watershed writes -1 along the image border: give it a border of its own.
    padded = cv2.copyMakeBorder(lab, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    markers = np.zeros(padded.shape[:2], np.int32)
    rows, columns = _flattest_pixels(lab, step)
    markers[rows + 1, columns + 1] = np.arange(1, rows.size + 1)
    cv2.watershed(padded, markers)
    labels = fill_gaps(np.maximum(markers[1:-1, 1:-1], 0), lab) - 1
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    return Superpixels(labels, region_graph(labels, np.dstack([colour_features(lab), x, y])))


def fill_gaps(
    labels: Int32[np.ndarray, "h w"], lab: UInt8[np.ndarray, "h w 3"]
) -> Int32[np.ndarray, "h w"]:
    """Gives each pixel of label 0 the label of its most similar labelled 4-neighbour, repeatedly.

    A map without any label stays as it is.
    """
    framed = np.pad(labels, 1)
    flat, stride = framed.reshape(-1), framed.shape[1]
    pixels = np.pad(lab.astype(np.int16), ((1, 1), (1, 1), (0, 0))).reshape(flat.size, -1)
    inside = np.zeros(framed.shape, bool)
    inside[1:-1, 1:-1] = True
    todo = np.flatnonzero(inside.reshape(-1) & (flat == 0))
    while todo.size:
        around = todo[:, None] + np.array([-1, 1, -stride, stride])
        apart = np.abs(pixels[around] - pixels[todo, None]).sum(-1)
        apart[flat[around] == 0] = np.iinfo(apart.dtype).max
        found = flat[around[np.arange(todo.size), apart.argmin(1)]]
        if not found.any():
            break
        flat[todo] = found
        todo = todo[found == 0]
    return np.ascontiguousarray(framed[1:-1, 1:-1])


def _flattest_pixels(lab: UInt8[np.ndarray, "h w 3"], step: int) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixel of least gradient in each cell of a step x step grid."""
    height, width = lab.shape[:2]
    gradient = cv2.morphologyEx(lab, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    steepness = cv2.max(cv2.max(gradient[..., 0], gradient[..., 1]), gradient[..., 2])
    rows, columns = -(-height // step), -(-width // step)
    cells = np.full((rows * step, columns * step), 256, np.int16)
    cells[:height, :width] = steepness
    cells = cells.reshape(rows, step, columns, step).transpose(0, 2, 1, 3)
    best = cells.reshape(rows * columns, step * step).argmin(1)
    cell = np.arange(rows * columns)
    return cell // columns * step + best // step, cell % columns * step + best % step
