"""Sizes and labels that change together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tokenization.resizing import fit, resize_labels

sides = st.integers(1, 20)


@given(sides, sides, st.integers(0, 30), st.integers(0, 30))
def test_enlarging_labels_and_shrinking_them_back_changes_nothing(h: int, w: int, dh: int, dw: int):
    labels = np.arange(h * w, dtype=np.int32).reshape(h, w)
    assert np.array_equal(resize_labels(resize_labels(labels, h + dh, w + dw), h, w), labels)


def test_labels_of_several_frames_are_resized_alike():
    labels = np.random.default_rng(0).integers(0, 9, (3, 7, 5)).astype(np.uint16)
    found = resize_labels(labels, 4, 11)
    assert found.dtype == np.uint16
    assert np.array_equal(found, np.stack([resize_labels(frame, 4, 11) for frame in labels]))
    assert resize_labels(np.array([[1, 2, 3, 4]]), 1, 2).tolist() == [[2, 4]]


@given(st.integers(1, 9000), st.integers(1, 9000), st.integers(1, 9000))
def test_a_fitted_size_keeps_the_aspect_and_never_grows(width: int, height: int, longest: int):
    new_width, new_height = fit(width, height, longest)
    assert max(new_width, new_height) == min(max(width, height), longest)
    assert min(new_width, new_height) >= 1
    scale = max(new_width, new_height) / max(width, height)
    assert abs(new_width - width * scale) <= 1 and abs(new_height - height * scale) <= 1


def test_no_limit_keeps_the_size():
    assert fit(640, 480, None) == (640, 480)
