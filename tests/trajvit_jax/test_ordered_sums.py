"""Sums in an order that is always the same: equal to scatters, in value and gradient."""

from __future__ import annotations

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import ordered_sums
from trajvit_jax.ops.ordered_sums import count_segments, read_rows, segment_sum


def drawn(seed: int, n: int, count: int, *channels: int):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, *channels)).astype(np.float32)
    return jnp.asarray(values), jnp.asarray(rng.integers(0, count + 2, n), jnp.int32)


@functools.partial(jax.jit, static_argnums=(2, 3))
def ordered_sum(values, segments, count, most=None):
    return segment_sum(values, segments, count, ordered=True, most=most)


@functools.partial(jax.jit, static_argnames=("count", "ordered"))
def summed(values, segments, count, *, ordered):
    def probed(values):
        total = segment_sum(values, segments, count, ordered=ordered)
        return (total * jnp.cos(jnp.arange(total.size).reshape(total.shape))).sum(), total

    (_, total), gradient = jax.value_and_grad(probed, has_aux=True)(values)
    return total, gradient


@pytest.mark.parametrize(
    ("n", "count", "channels"), [(1, 3, ()), (50, 4, (3,)), (50, 90, (2, 2)), (64, 1, ())]
)
def test_sums_and_gradients_are_those_of_scatters(n, count, channels, assert_close):
    """Numbers beyond the last segment are left out of both."""
    values, segments = drawn(0, n, count, *channels)
    expected = summed(values, segments, count, ordered=False)
    assert_close(summed(values, segments, count, ordered=True), expected)


@pytest.mark.parametrize("most", [1, 2, 5, 8, 9])
def test_as_many_addends_as_are_said_are_all_there(most):
    """Whole numbers: any order gives the same sum."""
    rng, count, length = np.random.default_rng(most), 7, 80
    for _ in range(10):
        segments = np.repeat(np.arange(count), rng.integers(0, most + 1, count))
        left_out = np.full(length - len(segments), count)
        segments = rng.permutation(np.append(segments, left_out)).astype(np.int32)
        values = rng.integers(-9, 10, length).astype(np.float32)
        expected = np.zeros(count + 1, np.float32)
        np.add.at(expected, segments, values)
        np.testing.assert_array_equal(ordered_sum(values, segments, count, most), expected[:-1])


def test_a_sum_depends_on_its_own_addends_alone_to_the_last_bit():
    """Wherever they stand among others, in the same order; a scatter may add in any."""
    rng = np.random.default_rng(0)
    own = (10.0 ** rng.uniform(-6, 6, 100)).astype(np.float32)
    alone = ordered_sum(own, jnp.zeros(100, jnp.int32), 1)
    places = np.sort(rng.choice(400, 100, replace=False))
    values = rng.normal(size=400).astype(np.float32)
    segments = rng.integers(0, 4, 400).astype(np.int32)
    segments[segments == 2] = 1
    values[places], segments[places] = own, 2
    mixed = ordered_sum(values, segments, 4)
    assert mixed[2] == alone[0]


def test_what_is_not_a_number_stays_in_its_segment():
    values = jnp.asarray([1.0, jnp.nan, 2.0, jnp.inf, 3.0])
    total = ordered_sum(values, jnp.asarray([2, 0, 2, 1, 2], jnp.int32), 4)
    np.testing.assert_array_equal(total, [np.nan, np.inf, 6, 0])


def test_rows_that_are_read_often_gather_all_their_gradients(assert_close):
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.normal(size=(7, 3)).astype(np.float32))
    rows = jnp.asarray(rng.integers(0, 5, (4, 6)), jnp.int32)
    probe = jnp.asarray(rng.normal(size=(4, 6, 3)).astype(np.float32))

    def read(ordered):
        def probed(table):
            found = read_rows(table, rows, ordered=ordered)
            return (found * probe).sum(), found

        return jax.jit(jax.value_and_grad(probed, has_aux=True))(table)

    assert_close(read(True), read(False))
    assert not read(True)[1][5:].any()


def test_counts():
    found = count_segments(jnp.asarray([0, 2, 2, 3, 9], jnp.int32), 3)
    np.testing.assert_array_equal(found, [1, 0, 2])


def test_the_benchmark_measures_both_ways(tmp_path, capsys, monkeypatch):
    sizes = {"CHANNELS": (2, 3), "GRIDS": (8, 4), "WIDTH": 8, "WORDS": 50, "TEXT_WIDTH": 4}
    for name, size in sizes.items():
        monkeypatch.setattr(ordered_sums, name, size)
    report = tmp_path / "sums.json"
    assert ordered_sums.main(["--quick", f"--json={report}"]) == 0
    assert "words, ordered:" in capsys.readouterr().out
    assert set(json.loads(report.read_text())["ratios"]) == {"pooling", "words"}
