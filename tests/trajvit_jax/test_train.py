"""Training end to end on a toy: interrupted, resumed, broken, evaluated."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import signal
import time

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest
from flax import nnx

from tokenization.interrupts import Preempted
from tokenization.shards import write_records
from trajvit_jax import checkpoints as checkpoints_module
from trajvit_jax import train as training
from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.config import to_settings
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import retrieval
from trajvit_jax.experiment import ExperimentSettings, recipe_of
from trajvit_jax.models.settings import EncoderSettings, ResNetSettings, TrajViTSettings
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.optim import OptimizerSettings, optimizer, schedule
from trajvit_jax.sharding import MeshSettings, make_mesh
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings, make_step

METRICS = {
    f"{way}_{metric}"
    for way in ("vid2txt", "txt2vid")
    for metric in ("r1", "r5", "r10", "median_rank")
}


@pytest.fixture(scope="module")
def records(tmp_path_factory, toy_record):
    folder = tmp_path_factory.mktemp("records")
    write_records(folder, [toy_record(i) for i in range(16)])
    return folder


@pytest.fixture
def experiment(records, tiny):
    """Six steps with a checkpoint at 3 and 6."""

    def make(name: str, **changes) -> ExperimentSettings:
        folder = str(records)
        data = DataSettings(train=folder, eval_split="train", batch=4, eval_batch=8, threads=2)
        values = {"steps": 6, "log_every": 1, "checkpoint_every": 3} | changes
        one_stage = TrajViTSettings(max_trajectories=6, resnet=ResNetSettings(4, (8,), (1,)))
        return ExperimentSettings(model=tiny(name, trajvit=one_stage), data=data, **values)

    return make


@pytest.fixture
def change_step(monkeypatch):
    """Calls `change(number, measures)` after every step, the first of a run being 1.

    Returns the list that every step function will be appended to.
    """
    make_step, made = training.make_step, []

    def install(change):
        def make(*arguments, **options):
            step, calls = make_step(*arguments, **options), iter(range(1, 1000))
            made.append(step)

            def changed(state, batch):
                state, measures = step(state, batch)
                return state, change(next(calls), measures)

            changed._cache_size = step._cache_size
            return changed

        monkeypatch.setattr(training, "make_step", make)
        return made

    return install


def interrupt_at(number):
    def change(step, measures):
        if step == number:
            signal.raise_signal(signal.SIGINT)
        return measures

    return change


def logged(workdir, name):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line[name] for line in lines if name in line}


def saved_arrays(workdir, settings, random_model):
    """Everything that the newest checkpoint holds."""
    text = WordPiece.load(workdir / "vocab.txt", settings.model.text.length)
    sizes = dataclasses.replace(settings.model.text, vocabulary=len(text))
    model = random_model(dataclasses.replace(settings.model, text=sizes))
    like = TrainState.create(model, optimizer(settings.optimizer, settings.steps))
    with Checkpoints(workdir) as checkpoints:
        return checkpoints.latest_step, checkpoints.restore(like).arrays()


def test_an_interrupted_run_goes_on_as_if_unbroken(experiment, change_step, random_model, tmp_path):
    settings = experiment("trajvit")
    steps = change_step(lambda _, measures: measures)
    unbroken = training.train(settings, tmp_path / "unbroken")
    assert set(unbroken) >= METRICS | {"videos", "texts", "parameters", "seconds_a_step"}
    assert unbroken["videos"] == unbroken["texts"] == 16

    # Not at a step that is saved anyway.
    change_step(interrupt_at(2))
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, tmp_path / "broken")
    with Checkpoints(tmp_path / "broken") as checkpoints:
        assert checkpoints.latest_step == 2
    change_step(lambda _, measures: measures)
    resumed = training.train(settings, tmp_path / "broken")

    # A second program would be a compilation after the first step.
    assert [step._cache_size() for step in steps] == [1, 1, 1]
    assert logged(tmp_path / "broken", "loss") == logged(tmp_path / "unbroken", "loss")
    assert {name: resumed[name] for name in METRICS} == {name: unbroken[name] for name in METRICS}
    (step, expected), (_, actual) = (
        saved_arrays(tmp_path / name, settings, random_model) for name in ("unbroken", "broken")
    )
    assert step == 6
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def evaluations(workdir):
    """Step and results of every evaluation, in order."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["eval/txt2vid_r1"]) for line in lines if "eval/videos" in line]


def test_a_run_is_evaluated_by_other_protocols_too(
    experiment, records, change_step, tmp_path, caplog
):
    line = f"retrieval --records={records} --split=train --captions=first --dataset=toys --batch=8"
    name = "retrieval-toys/txt2vid_r1"
    settings = experiment("vit3d", steps=2, evaluate_every=1, keep_best=name, protocols=(line,))
    change_step(lambda _, measures: measures)
    found = training.train(settings, tmp_path)
    assert set(found) >= METRICS | {f"retrieval-toys/{own}" for own in METRICS}
    by_step = logged(tmp_path, f"eval/{name}")
    assert list(by_step) == [1, 2] and by_step[2] == found[name]
    told = json.loads((tmp_path / "results.json").read_text())
    assert list(told["protocols"]) == ["retrieval-toys"] and told[name] == found[name]
    with caplog.at_level("INFO"):
        assert training.train(settings, tmp_path) == found
    assert "is finished" in caplog.text
    # Another protocol asks anew, without another step.
    change_step(lambda *_: pytest.fail("trained on"))
    other = dataclasses.replace(settings, keep_best="", protocols=(f"{line} --dual-softmax=1",))
    assert f"{name}_dual_softmax" in training.train(other, tmp_path)
    plain = training.train(dataclasses.replace(other, protocols=()), tmp_path)
    assert "protocols" not in json.loads((tmp_path / "results.json").read_text())
    assert set(plain) == set(found) - {name for name in found if "/" in name}


@pytest.mark.slow
def test_a_stop_at_an_evaluation_is_made_up_for(experiment, change_step, monkeypatch, tmp_path):
    settings = experiment("vit3d", evaluate_every=2, keep_best="txt2vid_r1", keep=1)
    change_step(lambda _, measures: measures)
    training.train(settings, tmp_path / "unbroken")
    expected = evaluations(tmp_path / "unbroken")
    assert [step for step, _ in expected] == [2, 4, 6]

    change_step(interrupt_at(2))  # the evaluation is not begun
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, tmp_path / "broken")
    assert evaluations(tmp_path / "broken") == []
    evaluate, calls = training.evaluate, itertools.count(1)

    def left(*arguments, **options):
        if next(calls) == 2:  # the one after step 4 is begun, the one after step 2 is made up for
            signal.raise_signal(signal.SIGINT)
        return evaluate(*arguments, **options)

    change_step(lambda _, measures: measures)
    monkeypatch.setattr(training, "evaluate", left)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, tmp_path / "broken")
    assert evaluations(tmp_path / "broken") == expected[:1]
    for _ in range(2):  # again, when all is done but noted
        training.train(settings, tmp_path / "broken")
        assert evaluations(tmp_path / "broken") == expected
        (tmp_path / "broken/results.json").unlink()
    kept = [
        sorted(path.name for path in (tmp_path / name / "checkpoints").iterdir())
        for name in ("unbroken", "broken")
    ]
    assert kept[0] == kept[1]


def test_a_training_is_known_by_what_decides_its_numbers(experiment):
    settings = experiment("vit3d")
    same = dataclasses.replace(
        settings,
        seed=4,
        log_every=5,
        protocols=("retrieval --records=x",),
        mesh=MeshSettings(data=1),
        data=dataclasses.replace(settings.data, threads=1, eval_batch=2),
        step=dataclasses.replace(settings.step, micro_batches=2),
    )
    recipe = recipe_of(settings)
    assert recipe_of(same) == recipe and json.loads(json.dumps(recipe)) == recipe
    assert "initial" not in recipe  # a setting that is as ever leaves it as it was
    by_part = dataclasses.replace(settings.step, norm_scope="part")
    for other in (
        dataclasses.replace(settings, steps=7),
        dataclasses.replace(settings, initial="runs/first"),
        dataclasses.replace(settings, step=by_part),
    ):
        assert recipe_of(other) != recipe
    parts = [dataclasses.replace(by_part, micro_batches=count) for count in (1, 2)]
    assert len({str(recipe_of(dataclasses.replace(settings, step=own))) for own in parts}) == 2


@pytest.fixture
def begun(monkeypatch):
    """From now on a run that begins anything raises this."""

    class Begun(Exception):
        pass

    def begin(*arguments, **options):
        raise Begun

    return lambda: monkeypatch.setattr(training, "make_step", begin) or Begun


def test_a_finished_run_has_nothing_to_do(experiment, toy_record, begun, caplog, tmp_path):
    settings = experiment("vit3d")
    results = training.train(settings, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*")}
    work = begun()
    with caplog.at_level("INFO", "trajvit_jax"):
        assert training.train(settings, tmp_path) == results
    said = f"{tmp_path} is finished: all 6 steps are made and evaluated. Its results are in "
    assert f"{said}{tmp_path / 'results.json'}" in caplog.text
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("[!.]*")}

    # It is still the run of its own settings, ...
    with pytest.raises(ValueError, match="other settings"):
        training.train(dataclasses.replace(settings, seed=1), tmp_path)
    # ... its results are of its own evaluation, ...
    write_records(tmp_path / "others", [toy_record(i) for i in range(4)], split="train")
    moved = dataclasses.replace(settings.data, evaluation=str(tmp_path / "others"))
    with pytest.raises(work):
        training.train(dataclasses.replace(settings, data=moved), tmp_path)
    # ... and a last checkpoint that is damaged is no end.
    largest = max((tmp_path / "checkpoints/6").rglob("*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-1])
    with pytest.raises(work):
        training.train(settings, tmp_path)


def test_a_finished_run_without_its_results_is_evaluated(experiment, begun, tmp_path):
    settings = experiment("vit3d")
    training.train(settings, tmp_path)
    (tmp_path / "results.json").unlink()
    work = begun()
    with pytest.raises(work):
        training.train(settings, tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(work):
        training.train(settings, tmp_path)


def test_a_reminder_does_not_cut_off_the_save(experiment, change_step, monkeypatch, tmp_path):
    """SIGUSR1 in step 2, and SIGTERM while that step is being saved; then again for the last one.

    Outside the loop a signal raises, as `interrupts.install` sees to in the command.
    """
    note_files = checkpoints_module.note_files

    def remind(folder):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)
        note_files(folder)

    def interrupt(number, frame):
        raise Preempted

    def warn(step, measures):
        if step == 2:
            signal.raise_signal(signal.SIGUSR1)
        return measures

    before = signal.signal(signal.SIGTERM, interrupt)
    monkeypatch.setattr(checkpoints_module, "note_files", remind)
    settings = experiment("vit3d", steps=3)
    try:
        change_step(warn)
        with pytest.raises(Preempted, match="stopped after step 2"):
            training.train(settings, tmp_path)
        assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]
        change_step(lambda _, measures: measures)
        with pytest.raises(Preempted, match="stopped after step 3"):
            training.train(settings, tmp_path)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["2", "3"]
    assert training.train(settings, tmp_path)["txt2vid_r1"] >= 0  # the evaluation is made up for


@pytest.mark.slow
def test_a_streak_of_skipped_steps_goes_through_a_checkpoint(experiment, change_step, tmp_path):
    settings = experiment("vit3d", max_skipped=3, checkpoint_every=2, steps=4)

    def bad_and_stopped(step, measures):
        return interrupt_at(2)(step, measures | {"skipped": 1})

    change_step(bad_and_stopped)
    with pytest.raises(KeyboardInterrupt):
        training.train(settings, tmp_path)
    change_step(lambda _, measures: measures | {"skipped": 1})
    with pytest.raises(FloatingPointError, match="3 steps in a row up to step 3 "):
        training.train(settings, tmp_path)


def test_steps_in_a_row_that_are_not_finite_end_the_run(experiment, change_step, tmp_path):
    def change(step, measures):
        return measures | ({"loss": jnp.nan, "skipped": 1} if step in (2, 4, 5) else {})

    change_step(change)
    settings = experiment("vit3d", max_skipped=2)
    with pytest.raises(FloatingPointError, match="2 steps in a row up to step 5"):
        training.train(settings, tmp_path)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest_step == 3
    told = json.loads((tmp_path / "nonfinite-5.json").read_text())["steps"]
    assert [one["step"] for one in told] == [4, 5]
    assert all(len(one["ids"]) == 4 for one in told)
    assert logged(tmp_path, "loss")[4] is None  # JSON has no NaN
    assert logged(tmp_path, "skipped") == {1: 0, 2: 1, 3: 0, 4: 1, 5: 1}


def test_a_step_that_is_not_finite_changes_nothing(
    experiment, random_model, toy_record, train_batches
):
    settings = experiment("vit3d")
    text = WordPiece.train(["a red square"], settings.model.text.length)
    source = [toy_record(i) for i in range(4)]
    batch = next(train_batches(source, settings.model, text, settings.data, seed=0))
    tx = optimizer(settings.optimizer, 100)
    state = TrainState.create(random_model(settings.model), tx)
    state.params["project_video"]["bias"][...] *= jnp.nan
    before = jax.tree.map(np.array, state.arrays())
    rate = schedule(settings.optimizer, 100)
    step = make_step(tx, StepSettings(), settings.model, seed=0, rate=rate)
    for number in (1, 2):
        state, measures = step(state, batch)
        assert int(measures["skipped"]) == 1
        # Of the optimizer's count, which these steps do not move.
        assert float(measures["learning_rate"]) == rate(0) < rate(1)
        assert int(state.step) == number
    after = state
    after = after.arrays() | {"step": before["step"]}
    jax.tree.map(np.testing.assert_array_equal, after, before)


def test_the_average_of_the_parameters_is_what_is_evaluated(
    experiment, random_model, toy_record, train_batches, assert_close, monkeypatch, tmp_path
):
    """Of three steps, of which the second one is not finite."""
    settings, decay = experiment("vit3d"), 0.75
    text = WordPiece.train(["a red square"], settings.model.text.length)
    source = [toy_record(i) for i in range(4)]
    batch = next(train_batches(source, settings.model, text, settings.data, seed=0))
    tx = optax.adam(0.01)
    state = TrainState.create(random_model(settings.model), tx)
    state = state.replace(average=jax.tree.map(jnp.copy, state.params))
    step = make_step(tx, StepSettings(average_decay=decay), settings.model, seed=0)

    expected = jax.tree.map(np.array, state.average)
    for finite in (True, False, True):
        video = normalize_pixels(jnp.asarray(batch.video)) * (1.0 if finite else jnp.nan)
        state, measures = step(state, batch.replace(video=video))
        assert bool(measures["skipped"]) is not finite
        if finite:
            params = jax.tree.map(np.array, state.params)
            expected = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, expected, params)
        assert_close(state.average, expected)
    apart = jax.tree.map(lambda a, p: float(np.abs(a - p).max()), state.average, state.params)
    assert max(jax.tree.leaves(apart)) > 1e-3

    def found(model, *_, **__):
        assert_close(nnx.state(model, nnx.Param), expected)
        return {"of": 1.0}

    monkeypatch.setattr(retrieval, "evaluate", found)
    mesh = make_mesh(MeshSettings())
    how = {"batch": 4, "mesh": mesh, "between": lambda: None}
    assert training.evaluate(state, source, text, (), tmp_path, **how) == {"of": 1.0}


def test_the_loss_falls_on_a_batch_that_can_be_learned(
    experiment, random_model, toy_record, train_batches
):
    settings = experiment("vit3d", optimizer=OptimizerSettings(learning_rate=2e-3))
    captions = [toy_record(i).captions[0] for i in range(16)]
    text = WordPiece.train(captions, settings.model.text.length)
    source = [toy_record(i) for i in range(16)]
    data = dataclasses.replace(settings.data, batch=16)
    batch = next(train_batches(source, settings.model, text, data, seed=0))
    tx = optimizer(settings.optimizer, 100)
    state = TrainState.create(random_model(settings.model), tx)
    step = make_step(tx, StepSettings(), settings.model, seed=0)
    losses = []
    for _ in range(80):
        state, measures = step(state, batch)
        losses.append(float(measures["loss"]))
    assert int(state.step) == 80
    assert losses[-1] < losses[0] / 2


def test_a_checkpoint_of_another_model_is_refused_by_name(tiny, random_model, tmp_path):
    def state(**changes):
        return TrainState.create(random_model(tiny("vit3d", **changes)), optax.sgd(1.0))

    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(FileNotFoundError, match="no checkpoint in"):
            checkpoints.restore(state())
        checkpoints.save(1, state())
    wider = EncoderSettings(width=48, depth=2, heads=2, mlp=64)
    other = state(encoder=wider)
    fits_not = pytest.raises(ValueError, match=r"checkpoints/1 does not fit.*another --workdir")
    with Checkpoints(tmp_path) as checkpoints, fits_not:
        checkpoints.restore(other)


def test_evaluation_refuses_a_record_without_captions(toy_record, tiny, random_model):
    source = [toy_record(0), toy_record(1, captions=())]
    text = WordPiece.train(["a red square"], 12)
    with pytest.raises(ValueError, match="'clip01' has no caption"):
        dict(retrieval.evaluate(random_model(tiny("vit3d")), source, text, batch=8))


def test_unknown_settings_are_refused_with_the_nearest_name():
    config = ml_collections.ConfigDict({"optimizer": {"learning_rat": 1.0}})
    with pytest.raises(ValueError, match=r"config\.optimizer\.learning_rat .*'learning_rate'"):
        to_settings(ExperimentSettings, config)


def test_records_that_do_not_fit_are_refused_before_compiling(experiment, tiny, tmp_path):
    settings = dataclasses.replace(experiment("trajvit"), model=tiny("trajvit", frames=8))
    reason = r"has 4 frames, the model reads 8; .*\(frames=4 behind .*classical\.py:frames=8"
    with pytest.raises(ValueError, match=reason):
        training.train(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "vit3dd"}, r"model\.name .* did you mean 'vit3d'"),
        ({"frames": 0}, r"ModelSettings\.frames must be .* got 0"),
    ],
)
def test_models_that_cannot_be_are_refused(tiny, changes, reason):
    with pytest.raises(ValueError, match=reason):
        ExperimentSettings(model=tiny(**changes))
