"""Contact sheets show what is right, missed and too much, in as many rows as there is to show."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.parts.quality_sheets import (
    _MISSED,
    _RIGHT,
    _TOO_MUCH,
    TILES,
    TITLE,
    Found,
    compose,
    judged,
    united,
)
from benchmarks.parts.tracking_metrics import Cover, best_cover, overlaps


def test_pixels_are_those_of_the_object_that_their_trajectory_is_taken_for():
    labels = np.array([[[0, 1, 2, 3, 4]]])
    covers = (Cover((2, 4), 0.9, 0.5, 1.0), Cover((1,), 0.5, 0.5, 1.0), Cover((), 0.0, 0.0, 0.0))
    assert united(labels, covers).tolist() == [[[0, 2, 1, 0, 1]]]


def test_right_missed_and_too_much_have_colours_of_their_own():
    """The last two: an object that is taken for another one, and nothing where nothing is."""
    found, objects = np.array([[1, 0, 2, 2, 0]]), np.array([[1, 1, 0, 1, 0]])
    picture = judged(np.zeros((1, 5, 3), np.uint8), found, objects)
    expected = [_RIGHT, _MISSED, _TOO_MUCH, _TOO_MUCH, (0, 0, 0)]
    np.testing.assert_array_equal(picture[0], np.array(expected) // 2)


@pytest.mark.parametrize("follows", [True, False])
def test_there_is_a_row_for_each_thing_that_was_found(follows: bool):
    rgb = np.zeros((4, 36, 64, 3), np.uint8)
    objects = np.zeros((4, 36, 64), np.int32)
    objects[:, 8:24, 8:40] = 1
    labels = np.where(objects > 0, 2, 1).astype(np.uint16)
    labels[:, 8:24, 30:40] = 3
    shared = overlaps(labels, objects)
    found = Found(labels, (best_cover(shared, 1),))
    if follows:
        found = dataclasses.replace(found, followed=objects * 0, j=0.0)
    sheet = compose("some + pipeline", rgb, objects, found)
    height = 36 + TITLE  # small frames stay as they are
    assert sheet.shape == ((3 if follows else 2) * height, TILES * 64, 3)

    def middle_of_object(row: int) -> np.ndarray:
        return sheet[row * height + TITLE + 16, 16]

    np.testing.assert_array_equal(middle_of_object(1), np.array(_RIGHT) // 2)
    if follows:
        np.testing.assert_array_equal(middle_of_object(2), np.array(_MISSED) // 2)
