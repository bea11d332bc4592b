"""Interpolation against OpenCV and NumPy, rotary positions against what defines them."""

from __future__ import annotations

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.layer_norm import LayerNorm
from trajvit_jax.ops.interpolation import (
    bicubic_matrix,
    bilinear_matrix,
    bilinear_taps,
    resize_bilinear,
    resize_linear,
)
from trajvit_jax.ops.layer_norm import layer_norm
from trajvit_jax.ops.rotary import rotate


@pytest.mark.parametrize(("source", "target"), [(7, 56), (14, 5), (3, 3), (1, 4), (5, 1)])
def test_bilinear_weights_equal_opencv(source, target):
    signal = np.random.default_rng(0).normal(size=(source, 1)).astype(np.float32)
    expected = cv2.resize(signal, (1, target), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(bilinear_matrix(source, target) @ signal, expected, atol=1e-5)
    np.testing.assert_allclose(bilinear_matrix(source, target).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize(("source", "target"), [(7, 56), (14, 5), (3, 3), (1, 4)])
def test_taps_are_neighbours_whose_weights_sum_to_one(source, target):
    (low, low_weight), (high, high_weight) = bilinear_taps(source, target)
    assert low.min() >= 0 and high.max() < source and set(high - low) <= {0, 1}
    np.testing.assert_allclose(low_weight + high_weight, 1, atol=1e-6)
    assert (low_weight >= 0).all() and (high_weight >= 0).all()


@pytest.mark.parametrize("matrix", [bilinear_matrix, bicubic_matrix])
def test_matrices_that_a_cache_hands_out_are_read_only(matrix):
    with pytest.raises(ValueError, match="read-only"):
        matrix(3, 6)[0] = 0


def test_rows_are_resized_as_numpy_interpolates():
    x = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    centres = (np.arange(10) + 0.5) * 4 / 10 - 0.5
    expected = np.stack([np.interp(centres, np.arange(4), column) for column in x.T], -1)
    np.testing.assert_allclose(resize_linear(jnp.asarray(x), 10), expected, atol=1e-5)


def test_resize_equals_opencv():
    x = np.random.default_rng(0).normal(size=(2, 5, 3, 4)).astype(np.float32)
    expected = [cv2.resize(image, (9, 8), interpolation=cv2.INTER_LINEAR) for image in x]
    np.testing.assert_allclose(resize_bilinear(jnp.asarray(x), 8, 9), expected, atol=1e-5)


def test_rotation_keeps_lengths_and_what_it_does_not_turn():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 2, 8)), jnp.float32)
    turned = rotate(x, jnp.asarray([0.0, 1.0, 40.0]), dims=4)
    np.testing.assert_allclose(jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), 1e-5)
    np.testing.assert_array_equal(turned[..., 4:], x[..., 4:])
    np.testing.assert_allclose(turned[:, 0], x[:, 0], atol=1e-6)
    assert not np.allclose(turned[:, 1:, :, :4], x[:, 1:, :, :4], atol=1e-2)


def test_rotated_products_depend_on_the_distance_alone():
    query, key = np.random.default_rng(0).normal(size=(2, 8))
    positions = jnp.asarray([0.0, 3.0, 10.0, 13.0])

    def at(vector):
        return rotate(jnp.tile(jnp.asarray(vector, jnp.float32), (4, 1, 1)), positions, dims=8)

    products = np.einsum("qhd,khd->qk", at(query), at(key))
    assert products[0, 1] == pytest.approx(products[2, 3], abs=1e-5)
    assert products[1, 0] == pytest.approx(products[3, 2], abs=1e-5)
    assert abs(products[0, 1] - products[0, 2]) > 1e-3


@pytest.mark.parametrize(("mean", "bound"), [(1, 1e-5), (100, 1e-4)])
def test_layer_norm_is_exact_where_the_mean_is_large(mean, bound):
    x = (mean + np.random.default_rng(0).normal(size=(50, 64))).astype(np.float32)
    wide = x.astype(np.float64)
    expected = (wide - wide.mean(-1, keepdims=True)) / wide.std(-1, keepdims=True)
    norm = LayerNorm(64, epsilon=1e-12, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(norm(jnp.asarray(x)), expected, atol=bound)
    ones = jnp.ones(64)
    formula = layer_norm(jnp.asarray(x), ones, 0 * ones, 1e-12)
    np.testing.assert_allclose(formula, expected, atol=bound)


@pytest.mark.parametrize("dims", [3, 10])
def test_rotary_dims_that_do_not_fit_are_an_error(dims):
    with pytest.raises(ValueError, match=f"got {dims}"):
        rotate(jnp.ones((1, 1, 8)), jnp.zeros(1), dims=dims)
