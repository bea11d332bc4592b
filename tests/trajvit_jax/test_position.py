"""Position features against their formula."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from trajvit_jax.models.video_tokens.position import fourier_features


@pytest.mark.parametrize("coordinates", [2, 4], ids=["centres", "boxes"])
def test_fourier_features_are_sines_and_cosines_of_each_coordinate(coordinates):
    x = np.random.default_rng(0).random((3, 5, coordinates)).astype(np.float32)
    count = 64 // coordinates // 2
    expected = np.zeros((3, 5, 64))
    for index in np.ndindex(3, 5):
        parts = []
        for value in x[index].astype(np.float64):
            angles = [224 * value * 10_000 ** (-i / count) for i in range(count)]
            parts += [np.sin(angle) for angle in angles] + [np.cos(angle) for angle in angles]
        expected[index] = parts
    found = fourier_features(jnp.asarray(x))
    assert found.shape == (3, 5, 64)
    # An angle of up to 224 is rounded to float32 before its sine.
    np.testing.assert_allclose(found, expected, atol=224 * 2**-23)


def test_boxes_a_cell_apart_have_other_features():
    box = jnp.asarray([0.25, 0.25, 0.5, 0.5])
    here = fourier_features(box)
    for side in range(4):
        assert np.abs(fourier_features(box.at[side].add(1 / 56)) - here).max() > 0.1
