"""The plan of the benchmark that kills runs, and what it calls equal."""

from __future__ import annotations

import random
import signal

import pytest

from benchmarks.never_lost import Chain, Stop, Trainer, differing, plan
from trajvit_jax.run.sample_log import SampleLog


@pytest.mark.parametrize("stops", [1, 3, 20])
def test_half_of_the_stops_meet_a_save_and_some_a_start(stops):
    moments = plan(stops, 200, random.Random(0))
    kinds = [kind for kind, _ in moments]
    assert len(moments) == stops and kinds.count("save") == stops // 2
    assert kinds.count("start") == min(2, stops // 4)
    steps = [step for _, step in moments]
    assert steps == sorted(steps) and steps[-1] < 190


def test_what_only_one_run_has_differs():
    assert differing({1: "a", 2: "b"}, {1: "a", 2: "b"}) == (2, 0)
    assert differing({1: "a", 2: "b"}, {1: "a", 3: "b"}) == (3, 2)


@pytest.mark.parametrize(
    ("code", "arrays", "equal"),
    [(75, (9, 0), True), (75, (9, 1), False), (130, (9, 0), False), (75, (0, 0), False)],
)
def test_a_chain_is_equal_only_if_all_is(code, arrays, equal):
    stop = Stop("step", 5, 6, 0, saving=False, code=code, seconds=1.0)
    chain = Chain(signal.SIGTERM, (stop,), 2, arrays, samples=(9, 0), losses=(9, 0), seconds=9.0)
    assert chain.equal == equal


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
