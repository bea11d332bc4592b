"""RoIAlign against points that are read one by one."""

from __future__ import annotations

import numpy as np
import pytest

from trajvit_jax.evals.roi_align import roi_align


def point(features, y, x):
    """Bilinear; zero further out than a cell, and the border's value up to there."""
    h, w, d = features.shape
    if y < -1 or y > h or x < -1 or x > w:
        return np.zeros(d)
    y, x = max(y, 0), max(x, 0)
    y0, x0 = min(int(y), h - 1), min(int(x), w - 1)
    y1, x1 = min(y0 + 1, h - 1), min(x0 + 1, w - 1)
    y, x = (y0 if y0 == h - 1 else y), (x0 if x0 == w - 1 else x)
    fy, fx = y - y0, x - x0
    above = features[y0, x0] * (1 - fx) + features[y0, x1] * fx
    below = features[y1, x0] * (1 - fx) + features[y1, x1] * fx
    return above * (1 - fy) + below * fy


@pytest.mark.parametrize("shape", [(14, 14), (3, 5), (1, 1), (2, 1)])
def test_cells_are_means_of_points(shape):
    rng = np.random.default_rng(0)
    h, w = shape
    features = rng.normal(size=(h, w, 3))
    for _ in range(10):
        x0, y0 = rng.uniform(0, 0.9, 2)
        x1, y1 = rng.uniform((x0, y0), 1)
        size, samples = int(rng.integers(1, 8)), int(rng.integers(1, 4))
        found = roi_align(features, np.array([x0, y0, x1, y1]), size=size, samples=samples)
        for i in range(size):
            for j in range(size):
                offsets = (np.arange(samples) + 0.5) / samples
                ys = y0 * h - 0.5 + (i + offsets) * (y1 - y0) * h / size
                xs = x0 * w - 0.5 + (j + offsets) * (x1 - x0) * w / size
                expected = np.mean([point(features, y, x) for y in ys for x in xs], axis=0)
                np.testing.assert_allclose(found[i, j], expected, atol=1e-12)


def test_a_linear_map_is_read_exactly():
    """A value that grows with its place comes back as the place of each cell's centre."""
    y, x = np.mgrid[:8, :8].astype(float)
    found = roi_align(np.stack([y, x], -1), np.array([0.25, 0.25, 0.75, 0.5]), size=2)
    np.testing.assert_allclose(found[..., 1], [[2.5, 4.5]] * 2)
    np.testing.assert_allclose(found[..., 0], [[2.0] * 2, [3.0] * 2])
