"""The loop with a step and an evaluation that do as they are told: what ends a run, and how."""

from __future__ import annotations

import contextlib
import itertools
import types

import jax
import numpy as np
import pytest

from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.failures import ComesAgain
from trajvit_jax.loop import Run, owes_evaluation, train_loop
from trajvit_jax.sharding import MeshSettings, make_mesh

pytestmark = pytest.mark.usefixtures("annotations_unchecked")  # the parts below are no real ones


class Watch:
    """Has read every step but the running one."""

    finished = 0

    def __init__(self, read):
        self._read = read

    def read(self, running):
        self._read(running.number)
        self.finished = running.number

    def paused(self):
        return contextlib.nullcontext()


class Kept:
    """Checkpoints of which only the steps are noted, and what was measured later."""

    def __init__(self):
        self.steps, self.metrics = [], {}

    def save(self, step, state, *, clock, wait):
        if step not in self.steps:
            self.steps.append(step)

    def add_metrics(self, step, metrics):
        assert step in self.steps
        self.metrics[step] = metrics


@pytest.fixture
def loop():
    """Runs four steps; returns the numbers of those that were saved."""
    run, kept = looped()
    return run, kept.steps


@pytest.fixture
def measured_loop():
    """The same; returns what is kept of them."""
    return looped()


def looped():
    kept = Kept()

    def run(evaluate=lambda state, between: {}, read=lambda number: None, **settings):
        nothing = types.SimpleNamespace
        batch = nothing(batch={"x": np.zeros(1)}, stream="video", ids=(), bad=())
        parts = Run(
            settings=ExperimentSettings(**{"steps": 4, "checkpoint_every": 4} | settings),
            mesh=make_mesh(MeshSettings()),
            step=lambda state, batch: (state, {}),
            compiled=nothing(check=lambda *_: None, count=1),
            checkpoints=kept,
            log=nothing(
                profiler=nothing(before=lambda *_: None), results=lambda step, results: None
            ),
            clock=nothing(values=dict),
            evaluate=evaluate,
        )
        state = nothing(step=0)
        train_loop(parts, state, itertools.repeat(batch), Watch(read), catches_up=False)

    return run, kept


def fail_at(step, error):
    def read(number):
        if number == step:
            raise error

    return read


def test_a_value_error_of_the_first_step_is_of_the_settings(loop):
    run, _ = loop
    with pytest.raises(ValueError, match="wrong shape"):
        run(read=fail_at(1, ValueError("wrong shape")))


def test_a_later_one_is_not(loop):
    """A restart may find the network folder, the library or the disk in order."""
    run, _ = loop
    with pytest.raises(RuntimeError, match="after step 1: stale file"):
        run(read=fail_at(2, ValueError("stale file")))


@pytest.mark.parametrize(
    "error", [ComesAgain("bad records"), FloatingPointError("nan"), OSError("disk")], ids=repr
)
def test_errors_that_say_what_they_are_stay(loop, error):
    run, _ = loop
    with pytest.raises(type(error), match=str(error)):
        run(read=fail_at(2, error))


def test_a_mistyped_keep_best_is_told_of_when_the_step_is_saved(loop):
    run, saved = loop
    reason = "keep_best='txt2vid_r11' is no result of the evaluation: did you mean 'txt2vid_r1'"
    with pytest.raises(ComesAgain, match=reason):
        run(lambda *_: {"txt2vid_r1": 0.5}, keep_best="txt2vid_r11", evaluate_every=2)
    assert saved == [2]


@pytest.mark.parametrize(
    ("settings", "step"),
    [({"checkpoint_every": 2, "evaluate_every": 2}, 2), ({}, 4)],
    ids=["between", "last"],
)
def test_an_evaluation_that_fails_loses_no_step(loop, settings, step):
    run, saved = loop

    def fails(state, between):
        raise OSError("no such folder")

    with pytest.raises(OSError, match="no such folder"):
        run(fails, **settings)
    assert saved == [step]


def test_a_saved_step_gets_the_metrics_of_its_evaluation(measured_loop):
    """Those of a step that is not saved are in the log alone."""
    run, kept = measured_loop
    recalls = iter((0.1, 0.2, 0.3))
    run(lambda *_: {"recall": next(recalls)}, evaluate_every=2, steps=6)
    assert kept.metrics == {4: {"recall": 0.2}, 6: {"recall": 0.3}}


def test_every_evaluated_step_may_be_the_best(measured_loop):
    run, kept = measured_loop
    recalls = iter((0.1, 0.2))
    run(lambda *_: {"recall": next(recalls)}, evaluate_every=2, keep_best="recall")
    assert kept.metrics == {2: {"recall": 0.1}, 4: {"recall": 0.2}}


def test_keep_best_needs_evaluations():
    with pytest.raises(ValueError, match=r"keep_best=.txt2vid_r1. needs .*evaluate_every"):
        ExperimentSettings(keep_best="txt2vid_r1")


@pytest.mark.parametrize(("processes", "saves"), [(1, [2]), (2, [])])
def test_of_several_processes_one_does_not_save_alone(loop, monkeypatch, processes, saves):
    """An evaluation that Ctrl-C, pressed again, ends in this process only."""
    run, saved = loop

    def interrupted(state, between):
        monkeypatch.setattr(jax, "process_count", lambda: processes)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(interrupted, evaluate_every=2)
    assert saved == saves


def test_of_several_processes_all_save_when_all_leave(loop, monkeypatch):
    run, saved = loop

    def left(state, between):
        monkeypatch.setattr("trajvit_jax.pod.agreement.Agreement.ask", agree)
        monkeypatch.setattr(jax, "process_count", lambda: 2)
        between()

    def agree(agreement, mine):
        agreement.reached = True
        return True

    with pytest.raises(KeyboardInterrupt, match="stopped after step 2"):
        run(left, evaluate_every=2)
    assert saved == [2]


@pytest.mark.parametrize(
    ("first", "metrics", "due"),
    [
        (0, None, False),  # nothing was restored
        (1, {}, False),
        (2, {}, True),  # stopped before its evaluation
        (2, {"r1": 0.5}, False),
        (4, {"r1": 0.5}, True),  # the last one is repeated
    ],
)
def test_an_evaluation_is_owed_where_a_stop_prevented_it(first, metrics, due):
    settings = types.SimpleNamespace(steps=4, evaluate_every=2)
    restored = None if metrics is None else types.SimpleNamespace(metrics=metrics)
    assert owes_evaluation(settings, first, restored) is due
