"""Position features against their formula."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.video_tokens.position import fourier_features
from trajvit_jax.models.video_tokens.trajvit import TrajectoryTokens


@pytest.mark.parametrize("coordinates", [2, 4, 5], ids=["centres", "boxes", "boxes and frames"])
def test_fourier_features_are_sines_and_cosines_of_each_coordinate(coordinates):
    x = np.random.default_rng(0).random((3, 5, coordinates)).astype(np.float32)
    count = 64 // coordinates // 2
    expected = np.zeros((3, 5, 64))
    for index in np.ndindex(3, 5):
        parts = []
        for value in x[index].astype(np.float64):
            angles = [224 * value * 10_000 ** (-i / count) for i in range(count)]
            parts += [np.sin(angle) for angle in angles] + [np.cos(angle) for angle in angles]
        expected[index][: len(parts)] = parts
    found = fourier_features(jnp.asarray(x))
    assert found.shape == (3, 5, 64)
    # An angle of up to 224 is rounded to float32 before its sine.
    np.testing.assert_allclose(found, expected, atol=224 * 2**-23)


def test_the_same_box_in_another_frame_has_other_coordinates(tiny):
    labels = jnp.ones((1, 4, 8, 8), jnp.int32)

    def coordinates(position):
        settings = tiny(trajvit=dataclasses.replace(tiny().trajvit, position=position))
        tokens = TrajectoryTokens(settings, rngs=nnx.Rngs(0))
        return np.asarray(tokens.position.coordinates(tokens.segments(labels, None)))[0, 1]

    boxes, told = coordinates("boxes"), coordinates("boxes_and_frames")
    np.testing.assert_array_equal(boxes, np.tile([0, 0, 1, 1], (4, 1)))
    np.testing.assert_array_equal(told[:, :4], boxes)
    np.testing.assert_allclose(told[:, 4], [0, 0.25, 0.5, 0.75])


def test_boxes_a_cell_apart_have_other_features():
    box = jnp.asarray([0.25, 0.25, 0.5, 0.5])
    here = fourier_features(box)
    for side in range(4):
        assert np.abs(fourier_features(box.at[side].add(1 / 56)) - here).max() > 0.1
