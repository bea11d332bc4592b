"""Batch normalization: PyTorch's running statistics, of what is no padding."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.batch_norm import BatchNorm

CHANNELS, CELLS = 3, 4 * 5


@nnx.jit(static_argnames="train")
def normalize(module, x, valid, *, train):
    return module(x, train=train, valid=valid)


@pytest.fixture
def module():
    norm, rng = BatchNorm(CHANNELS, rngs=nnx.Rngs(0)), np.random.default_rng(0)
    for parameter in (norm.scale, norm.bias, norm.mean, norm.var):
        parameter[...] = jnp.asarray(rng.uniform(0.5, 1.5, CHANNELS), jnp.float32)
    return norm


def images(count=6):
    rng = np.random.default_rng(1)
    return (3 + 2 * rng.normal(size=(count, 4, 5, CHANNELS))).astype(np.float32)


def plain(module, x, mean, var):
    x = (x - mean) / np.sqrt(var + 1e-5)
    return x * np.asarray(module.scale[...]) + np.asarray(module.bias[...])


def statistics(module):
    return np.asarray(module.mean[...]), np.asarray(module.var[...])


@pytest.mark.parametrize("counted", [6, 2])
def test_batch_statistics_normalize_and_move_the_running_ones(module, counted):
    x, valid = images(), np.arange(6) < counted
    values = x[valid].reshape(-1, CHANNELS)
    mean, var = statistics(module)
    out = normalize(module, x, None if counted == 6 else valid, train=True)
    np.testing.assert_allclose(out, plain(module, x, values.mean(0), values.var(0)), atol=1e-5)
    new_mean, new_var = statistics(module)
    np.testing.assert_allclose(new_mean, 0.9 * mean + 0.1 * values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new_var, 0.9 * var + 0.1 * values.var(0, ddof=1), rtol=1e-5)


@pytest.mark.usefixtures("annotations_unchecked")
@pytest.mark.parametrize("count", [1, 5])
def test_flags_of_another_number_of_images_are_refused(module, count):
    before = statistics(module)
    with pytest.raises(ValueError, match=rf"valid \[{count}\] is not of the 6 images"):
        normalize(module, images(), np.ones(count, bool), train=True)
    np.testing.assert_array_equal(statistics(module), before)


def test_padding_changes_neither_the_result_nor_the_statistics(module):
    x, valid, other = images(), np.arange(6) < 4, nnx.clone(module)
    before = normalize(module, x, valid, train=True)
    x[4:] = 1e6
    after = normalize(other, x, valid, train=True)
    np.testing.assert_array_equal(after[:4], before[:4])
    for ours, theirs in zip(statistics(module), statistics(other), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_batch_of_padding_is_normalized_by_the_running_statistics_and_leaves_them(module):
    x, (mean, var) = images(), statistics(module)
    out = normalize(module, x, np.zeros(6, bool), train=True)
    np.testing.assert_allclose(out, plain(module, x, mean, var), atol=1e-5)
    np.testing.assert_array_equal(statistics(module), (mean, var))


def test_evaluation_uses_the_running_statistics_and_leaves_them(module):
    x, (mean, var) = images(), statistics(module)
    out = normalize(module, x, None, train=False)
    np.testing.assert_allclose(out, plain(module, x, mean, var), atol=1e-5)
    np.testing.assert_array_equal(statistics(module), (mean, var))


def test_statistics_of_bfloat16_are_float32(module):
    ones = jnp.full((1, 64, 64, CHANNELS), 1.0, jnp.bfloat16)
    out = normalize(module, ones, None, train=True)
    assert out.dtype == jnp.bfloat16
    assert module.mean[...].dtype == module.var[...].dtype == jnp.float32
    fresh = BatchNorm(CHANNELS, rngs=nnx.Rngs(0))
    normalize(fresh, ones, None, train=True)
    np.testing.assert_allclose(fresh.mean[...], 0.1, rtol=1e-6)
    np.testing.assert_allclose(fresh.var[...], 0.9, rtol=1e-6)


def test_a_large_mean_costs_bfloat16_no_more_than_its_own_rounding():
    rng = np.random.default_rng(0)
    x = jnp.asarray(8 + rng.normal(size=(4, 16, 16, 3)), jnp.bfloat16)
    out = normalize(BatchNorm(3, rngs=nnx.Rngs(0)), x, None, train=True).astype(jnp.float32)
    wide = x.astype(jnp.float32)
    exact = (wide - wide.mean((0, 1, 2))) / jnp.sqrt(wide.var((0, 1, 2)) + 1e-5)
    np.testing.assert_allclose(out, exact, rtol=2**-8, atol=1e-3)
    assert np.abs(out.mean((0, 1, 2))).max() < 2e-3
