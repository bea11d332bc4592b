"""Steps that are not finite: forgiven, and in a row the end."""

from __future__ import annotations

import json

import pytest

from trajvit_jax.run.nonfinite import NonFiniteGuard

NAN = {"loss": float("nan")}


def test_steps_between_finite_ones_are_forgiven(tmp_path):
    guard = NonFiniteGuard(tmp_path, limit=2)
    for step in range(1, 9):
        guard.add(step, [f"clip{step}"], NAN, finite=step % 2 == 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("process", "name"), [(0, "nonfinite-7"), (1, "nonfinite-7-process1")])
def test_too_many_in_a_row_end_the_run_with_their_ids(tmp_path, process, name):
    guard = NonFiniteGuard(tmp_path, limit=3, process=process)
    with pytest.raises(FloatingPointError, match=rf"3 steps in a row up to step 7 .*{name}\.json"):
        for step in range(1, 20):
            guard.add(step, ["a", f"b{step}"], NAN, finite=step < 5)
    assert step == 7
    steps = json.loads((tmp_path / f"{name}.json").read_text())["steps"]
    assert [one["step"] for one in steps] == [5, 6, 7]
    assert steps[0] == {"step": 5, "ids": ["a", "b5"], "measures": {"loss": "nan"}}


def test_the_streak_goes_on_after_a_restart(tmp_path):
    guard = NonFiniteGuard(tmp_path, limit=3)
    for step in range(1, 5):
        guard.add(step, [], NAN, finite=step < 3)
    assert guard.streak == 2
    resumed = NonFiniteGuard(tmp_path, limit=3, streak=guard.streak)
    with pytest.raises(FloatingPointError, match="3 steps in a row up to step 5 "):
        resumed.add(5, ["a"], NAN, finite=False)
    resumed = NonFiniteGuard(tmp_path, limit=3, streak=2)
    resumed.add(5, [], NAN, finite=True)
    assert resumed.streak == 0
