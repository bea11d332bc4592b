"""The plan of the benchmark that kills runs, what it calls equal, and a small form of it."""

from __future__ import annotations

import random
import signal

import pytest

from benchmarks.never_lost import Chain, Stop, Trainer, differing, measure, plan, report
from trajvit_jax.run.sample_log import SampleLog


@pytest.mark.parametrize("stops", [1, 3, 20])
def test_half_of_the_stops_meet_a_save_and_some_a_start(stops):
    moments = plan(stops, 200, random.Random(0))
    kinds = [kind for kind, _ in moments]
    assert len(moments) == stops and kinds.count("save") == stops // 2
    assert kinds.count("start") == min(2, stops // 4)
    steps = [step for _, step in moments]
    assert steps == sorted(steps) and steps[-1] < 180


def test_what_only_one_run_has_differs():
    assert differing({1: "a", 2: "b"}, {1: "a", 2: "b"}) == (2, 0)
    assert differing({1: "a", 2: "b"}, {1: "a", 3: "b"}) == (3, 2)


def chain(number, *stops, arrays=(9, 0)):
    own = tuple(Stop(*stop, seconds=1.0) for stop in stops)
    return Chain(number, own, 1 + len(own), arrays, samples=(9, 0), losses=(9, 0), seconds=9.0)


def asked(*, code=75, lost=0, saving=False):
    return ((signal.SIGUSR1, signal.SIGTERM), "step", 5, 6, lost, saving, code)


@pytest.mark.parametrize(
    ("stop", "arrays", "equal"),
    [
        (asked(), (9, 0), True),
        (asked(), (9, 1), False),
        (asked(), (0, 0), False),
        (asked(code=130), (9, 0), False),
        (asked(lost=1), (9, 0), False),
        (asked(saving=True), (9, 0), False),
    ],
)
def test_a_chain_is_equal_only_if_all_is_and_all_was_saved(stop, arrays, equal):
    own = chain(signal.SIGTERM, stop, arrays=arrays)
    assert own.equal == own.holds == equal
    assert ("DOES NOT HOLD" in report([own], 9)) is not equal


def test_kills_are_a_proof_only_if_one_met_a_save():
    missed = ((signal.SIGKILL,), "save", 5, 6, 3, False, -9)
    met = ((signal.SIGKILL,), "save", 5, 6, 3, True, -9)
    assert chain(signal.SIGKILL, missed).equal and not chain(signal.SIGKILL, missed).holds
    assert "none met a save" in report([chain(signal.SIGKILL, missed)], 9)
    assert chain(signal.SIGKILL, missed, met).holds


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_and_stopped_runs_end_as_the_unbroken_one(tmp_path):
    chains = measure(tmp_path, steps=50, kills=4, terms=2, seed=0)
    assert all(own.holds for own in chains), report(chains, 50)
    assert {stop.signals for stop in chains[1].stops} == {
        (signal.SIGUSR1, signal.SIGTERM),
        (signal.SIGTERM,),
    }


def test_what_a_killed_run_left_behind_is_not_the_next_one_s(tmp_path, monkeypatch):
    monkeypatch.setattr(Trainer, "_launch", lambda self: None)
    trainer = Trainer(tmp_path, tmp_path / "config.py", "run")
    checkpoints = trainer.workdir / "checkpoints"
    checkpoints.mkdir(parents=True)

    def write(first, last):
        with SampleLog(trainer.workdir, step=first) as log:
            for step in range(first + 1, last + 1):
                log.write(step, ["a"])

    trainer.start()
    write(0, 17)
    (checkpoints / "10.orbax-checkpoint-tmp").mkdir()
    assert trainer.step() == 17 and trainer.saving()
    trainer.start()  # once it was killed
    assert trainer.step() == 0 and not trainer.saving()
    (checkpoints / "10.orbax-checkpoint-tmp").rmdir()
    write(5, 5)  # what the new run does when it opens its log
    assert trainer.step() == 5 and not trainer.saving()
    write(5, 11)
    (checkpoints / "10.orbax-checkpoint-tmp").mkdir()
    assert trainer.step() == 11 and trainer.saving()
