"""Array operations against OpenCV, NumPy loops and the plain dense formulas."""

from __future__ import annotations

import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.ops.interpolation import bilinear_matrix, resize_bilinear
from trajvit_jax.ops.mask_pooling import areas, boxes, pool_masks
from trajvit_jax.ops.rotary import rotate

EPS = 1e-6


@functools.partial(jax.jit, static_argnums=2)
def measure(features, labels, slots):
    return pool_masks(features, labels, slots), areas(labels, slots), boxes(labels, slots)


def plain(features, labels, slots):
    """Mean, area and box by one mask at a time."""
    b, t, h, w, d = features.shape
    mean, area, box = (np.zeros((b, slots, t, *tail)) for tail in ((d,), (), (4,)))
    for i, slot, frame in np.ndindex(b, slots, t):
        mask = labels[i, frame] == slot
        area[i, slot, frame] = mask.sum()
        if mask.any():
            mean[i, slot, frame] = features[i, frame][mask].mean(0)
            y, x = np.nonzero(mask)
            box[i, slot, frame] = x.min() / w, y.min() / h, (x.max() + 1) / w, (y.max() + 1) / h
    return mean, area, box


def one_covers_all(shape):
    return np.full(shape, 2, np.int32)


def no_trajectory(shape):
    return np.zeros(shape, np.int32)


def random_slots(slots):
    return lambda shape: np.random.default_rng(0).integers(0, slots, shape).astype(np.int32)


@pytest.mark.parametrize(
    ("shape", "slots", "make"),
    [
        ((2, 3, 5, 4), 6, random_slots(6)),
        ((2, 3, 5, 4), 6, one_covers_all),
        ((2, 3, 5, 4), 6, no_trajectory),
        ((3, 1, 4, 6), 4, random_slots(3)),
        ((1, 2, 20, 20), 301, random_slots(301)),
    ],
)
def test_pooling_equals_a_loop_over_masks(shape, slots, make):
    labels = make(shape)
    features = np.random.default_rng(1).normal(size=(*shape, 3)).astype(np.float32)
    pooled, area, box = map(np.asarray, measure(features, labels, slots))
    expected_mean, expected_area, expected_box = plain(features, labels, slots)
    np.testing.assert_allclose(pooled, expected_mean, atol=1e-5)
    np.testing.assert_array_equal(area, expected_area)
    np.testing.assert_allclose(box, expected_box, atol=1e-7)
    assert not pooled[expected_area == 0].any() and not box[expected_area == 0].any()


def test_boxes_and_areas_equal_those_of_trajectories():
    labels = np.random.default_rng(0).integers(0, 9, (4, 6, 8)).astype(np.uint16)
    labels[2] = 0
    trajectories = Trajectories(
        labels, np.zeros(4, np.float32), np.arange(4) == 0, VideoInfo("v", 8, 6, 1.0, 4.0)
    )
    slots = len(trajectories) + 1
    features = np.random.default_rng(1).normal(size=(1, *labels.shape, 2)).astype(np.float32)
    pooled, area, box = measure(features, labels[None].astype(np.int32), slots)
    np.testing.assert_array_equal(area[0, 1:], trajectories.areas())
    np.testing.assert_allclose(box[0, 1:], trajectories.boxes(), atol=1e-7)
    masks = trajectories.padded_masks(slots - 1)
    sums = np.einsum("nthw,thwd->ntd", masks, features[0])
    means = sums / (masks.sum((2, 3))[..., None] + EPS)
    np.testing.assert_allclose(pooled[0, 1:], means, atol=1e-5)


def test_gradient_of_pooling_equals_that_of_the_dense_formula():
    rng = np.random.default_rng(0)
    labels = jnp.asarray(rng.integers(0, 5, (2, 3, 4, 4)), jnp.int32)
    features = jnp.asarray(rng.normal(size=(2, 3, 4, 4, 3)), jnp.float32)
    weights = jnp.asarray(rng.normal(size=(2, 5, 3, 3)), jnp.float32)

    def dense(features):
        masks = jax.nn.one_hot(labels, 5)
        sums = jnp.einsum("bthws,bthwd->bstd", masks, features)
        area = masks.sum((2, 3)).transpose(0, 2, 1)
        return (sums / (area[..., None] + EPS) * weights).sum()

    def sparse(features):
        return (pool_masks(features, labels, 5) * weights).sum()

    ours, plain = jax.jit(lambda x: (jax.grad(sparse)(x), jax.grad(dense)(x)))(features)
    np.testing.assert_allclose(ours, plain, atol=1e-5)


def test_pooling_of_bfloat16_sums_in_float32():
    features = jnp.ones((1, 1, 64, 64, 1), jnp.bfloat16)
    labels = np.ones((1, 1, 64, 64), np.int32)
    pooled, area, _ = measure(features, labels, 2)
    assert float(area[0, 1, 0]) == 4096
    assert float(pooled[0, 1, 0, 0]) == pytest.approx(1)


@pytest.mark.parametrize(("source", "target"), [(7, 56), (14, 5), (3, 3), (1, 4), (5, 1)])
def test_bilinear_weights_equal_opencv(source, target):
    signal = np.random.default_rng(0).normal(size=(source, 1)).astype(np.float32)
    expected = cv2.resize(signal, (1, target), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(bilinear_matrix(source, target) @ signal, expected, atol=1e-5)
    np.testing.assert_allclose(bilinear_matrix(source, target).sum(1), 1, atol=1e-6)


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


@pytest.mark.parametrize("dims", [3, 10])
def test_rotary_dims_that_do_not_fit_are_an_error(dims):
    with pytest.raises(ValueError, match=f"got {dims}"):
        rotate(jnp.ones((1, 1, 8)), jnp.zeros(1), dims=dims)
