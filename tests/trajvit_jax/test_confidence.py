"""Draws are with replacement, sums over them are those of a slow program, and Wilson's is his."""

from __future__ import annotations

import numpy as np
import pytest

from trajvit_jax import confidence


def test_a_draw_has_as_many_samples_and_the_seed_decides_which():
    one, two, other = (list(confidence.draws(30, 5, seed=seed)) for seed in (1, 1, 2))
    assert len(one) == 5
    assert all(len(own) == 30 and own.min() >= 0 and own.max() < 30 for own in one)
    assert any(len(set(own.tolist())) < 30 for own in one)  # some come twice
    np.testing.assert_array_equal(one, two)
    assert (np.array(one) != np.array(other)).any()


@pytest.mark.parametrize("at_once", [1, 50, 2**22])
def test_sums_are_those_over_the_same_draws(monkeypatch, at_once):
    monkeypatch.setattr(confidence, "_AT_ONCE", at_once)
    values = np.random.default_rng(0).normal(size=(20, 2))
    expected = [values[own].sum(0) for own in confidence.draws(20, 13, seed=4)]
    np.testing.assert_allclose(confidence.weighted_draws(values, 13, seed=4), expected, atol=1e-12)


def test_an_interval_is_the_middle_of_the_draws():
    values = np.append(np.arange(1001.0), np.nan)
    assert confidence.interval(values) == pytest.approx((25.0, 975.0))


def test_a_share_s_interval_solves_wilson_s_equation():
    """Its ends are the shares that the measured one is 1.96 of their own deviations away from."""
    for hits, count in ((0, 26), (3, 10), (26, 26), (50, 1000)):
        for end in confidence.wilson(hits / count, count):
            if 0 < end < 1:
                error = (end * (1 - end) / count) ** 0.5
                assert abs(hits / count - end) / error == pytest.approx(1.959964)
    low, high = confidence.wilson(0.0, 26)
    assert low == 0 and 0.1 < high < 0.15
