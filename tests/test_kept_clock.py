"""Stages are timed over all runs that it took."""

from __future__ import annotations

import json

import pytest

from benchmarks.parts import kept_clock
from benchmarks.parts.kept_clock import StageClock


@pytest.fixture
def passes(monkeypatch):
    """Lets seconds pass."""
    now = [100.0]
    monkeypatch.setattr(kept_clock.time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def test_seconds_of_processors_are_kept_beside_those_of_the_clock(tmp_path, passes, monkeypatch):
    used = [5.0]
    monkeypatch.setattr(kept_clock.os, "times", lambda: (used[0], 1.0, 2.0, 0.5, 1e9))
    clock = StageClock(tmp_path / "seconds.json")
    for more in (3.0, 4.0):
        with clock.stage("text"):
            passes(60)
            used[0] += more
    assert clock.seconds == {"text": 120} and clock.cpu_seconds == {"text": 7}
    again = StageClock(tmp_path / "seconds.json")
    with again.stage("text", again=True):
        used[0] += 2
    assert again.cpu_seconds == {"text": 2}


def test_a_stage_goes_on_where_an_interrupt_left_it(tmp_path, passes):
    path = tmp_path / "seconds.json"
    first = StageClock(path)
    with first.stage("clips"):
        passes(5)
    with pytest.raises(KeyboardInterrupt), first.stage("text"):
        passes(30)
        raise KeyboardInterrupt
    with first.stage("scores", again=True):
        passes(8)
    assert json.loads(path.read_text()) == {"clips": 5, "text": 30, "scores": 8}
    passes(1000)  # between runs nothing counts
    second = StageClock(path)
    with second.stage("text"):
        passes(12)
    with second.stage("scores", again=True):
        passes(9)
    # It was not in `clips`: a stage of another model, say.
    assert second.seconds == {"text": 42, "scores": 9}
    assert json.loads(path.read_text())["clips"] == 5
