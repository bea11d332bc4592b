"""Interiors of boundaries against plain loops."""

from __future__ import annotations

import cv2
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tokenization.segmenters.boundaries import grow, interiors

AROUND = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
SHAPES = st.tuples(st.integers(1, 12), st.integers(1, 12))


def plain_interiors(inside: np.ndarray, min_area: int, max_segments: int) -> np.ndarray:
    """Flood fill from each pixel in reading order."""
    seen, parts = np.zeros_like(inside), []
    for start in zip(*np.nonzero(inside), strict=True):
        if seen[start]:
            continue
        seen[start], part, queue = True, [], [start]
        while queue:
            y, x = queue.pop()
            part.append((y, x))
            for dy, dx in AROUND:
                near = (y + dy, x + dx)
                inner = 0 <= near[0] < inside.shape[0] and 0 <= near[1] < inside.shape[1]
                if inner and inside[near] and not seen[near]:
                    seen[near] = True
                    queue.append(near)
        parts.append(part)
    parts = [part for part in sorted(parts, key=len, reverse=True) if len(part) > min_area]
    labels = np.zeros(inside.shape, np.uint16)
    for number, part in enumerate(parts[:max_segments], 1):
        labels[tuple(np.transpose(part))] = number
    return labels


def plain_grow(labels: np.ndarray, reach: int) -> np.ndarray:
    grown = labels.copy()
    pixels = list(zip(*np.nonzero(labels), strict=True))
    for y, x in zip(*np.nonzero(labels == 0), strict=True):
        near = [(max(abs(y - v), abs(x - u)), -int(labels[v, u])) for v, u in pixels]
        if near and min(near)[0] <= reach:
            grown[y, x] = -min(near)[1]
    return grown


@settings(deadline=None)
@given(arrays(bool, SHAPES), st.integers(0, 6), st.integers(1, 6))
def test_interiors(inside, min_area, max_segments):
    found = interiors(inside, min_area=min_area, max_segments=max_segments)
    np.testing.assert_array_equal(found, plain_interiors(inside, min_area, max_segments))


@settings(deadline=None)
@given(arrays(np.uint16, SHAPES, elements=st.sampled_from([0, 0, 0, 1, 2, 300])), st.integers(0, 4))
def test_grow_takes_the_nearest_segment(labels, reach):
    np.testing.assert_array_equal(grow(labels, reach), plain_grow(labels, reach))


def test_growing_covers_what_two_rounds_of_a_5x5_square_do():
    labels = np.zeros((40, 40), np.uint16)
    labels[3:9, 4:20], labels[25:30, 22:37] = 1, 2
    square = cv2.dilate((labels > 0).astype(np.uint8), np.ones((5, 5), np.uint8), iterations=2)
    np.testing.assert_array_equal(grow(labels, 4) > 0, square > 0)


def test_more_than_255_segments():
    inside = np.zeros((80, 80), bool)
    inside[::3, ::3] = True
    found = interiors(inside, min_area=0, max_segments=1000)
    assert found.max() == inside.sum() == 27 * 27
