"""Steps that are not finite: counted, forgiven, and in a row the end."""

from __future__ import annotations

import json

import jax.numpy as jnp
import pytest

from trajvit_jax.nonfinite import NonFiniteGuard


def test_steps_between_finite_ones_are_counted_and_forgiven(tmp_path):
    guard = NonFiniteGuard(tmp_path, limit=2)
    for step in range(1, 9):
        guard.add(step, jnp.asarray(step % 2 == 0), [f"clip{step}"])
    guard.finish()
    assert (guard.skipped, guard.in_a_row) == (4, 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lag", [0, 1, 3])
def test_too_many_in_a_row_end_the_run_with_their_ids(tmp_path, lag):
    guard = NonFiniteGuard(tmp_path, limit=3, lag=lag)
    with pytest.raises(FloatingPointError, match=r"3 steps in a row up to step 7 .*finite-7\.json"):
        for step in range(1, 20):
            guard.add(step, step < 5, ["a", f"b{step}"], {"loss": float("nan")})
    assert step == 7 + lag
    steps = json.loads((tmp_path / "nonfinite-7.json").read_text())["steps"]
    assert [one["step"] for one in steps] == [5, 6, 7]
    assert steps[0] == {"step": 5, "ids": ["a", "b5"], "measures": {"loss": "nan"}}


def test_what_is_not_looked_at_yet_counts_at_the_end(tmp_path):
    guard = NonFiniteGuard(tmp_path, limit=2, lag=5, process=1)
    guard.add(1, False, [])
    guard.add(2, False, [])
    with pytest.raises(FloatingPointError, match=r"nonfinite-2-process1\.json"):
        guard.finish()
