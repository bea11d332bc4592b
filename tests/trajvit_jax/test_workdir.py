"""What a run keeps in its workdir: one experiment's settings, a log that resumes."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.experiment import (
    ExperimentSettings,
    check,
    check_files,
    has_run,
    note,
    read_settings,
)
from trajvit_jax.models.settings import ModelSettings, TextSettings
from trajvit_jax.run.metric_log import MetricLog
from trajvit_jax.run.run_log import Clock
from trajvit_jax.sharding import MeshSettings
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings


def test_a_workdir_keeps_to_one_experiment(tmp_path):
    first = ExperimentSettings(steps=10, data=DataSettings(train="a"))
    run = tmp_path / "run"
    note(run, dataclasses.replace(first, steps=99), "other records")
    check(run, first, "records")  # nothing was trained yet
    note(run, first, "records")
    (run / "checkpoints" / "5").mkdir(parents=True)

    check(run, dataclasses.replace(first, log_every=1), "records")
    read_otherwise = dataclasses.replace(first.data, threads=1, evaluation="b", max_bad=0.5)
    check(run, dataclasses.replace(first, data=read_otherwise), "records")
    in_parts = dataclasses.replace(first.step, micro_batches=4)
    check(run, dataclasses.replace(first, step=in_parts), "records")
    apart = dataclasses.replace(in_parts, norm_scope="part")
    with pytest.raises(ValueError, match=r"step\.micro_batches: 1, now 4; .*'batch', now 'part'"):
        check(run, dataclasses.replace(first, step=apart), "records")
    with pytest.raises(ValueError, match=r"run belongs to .*steps: 10, now 20.*--workdir"):
        check(run, dataclasses.replace(first, steps=20), "records")
    with pytest.raises(ValueError, match="records: 'records', now 'more records'"):
        check(run, first, "more records")


def test_parts_with_statistics_of_their_own_keep_to_their_devices(tmp_path, monkeypatch):
    """Each has some of every device's videos."""
    for scope, refused in (("batch", False), ("part", True)):
        run = tmp_path / scope
        step = StepSettings(micro_batches=2, norm_scope=scope)
        settings = ExperimentSettings(data=DataSettings(train="a"), step=step)
        note(run, settings, "records")
        (run / "checkpoints" / "5").mkdir(parents=True)
        check(run, settings, "records")
        assert read_settings(run) == settings
        with monkeypatch.context() as patched:
            patched.setattr(jax, "device_count", lambda: 8)
            if refused:
                with pytest.raises(ValueError, match="devices: 1, now 8"):
                    check(run, settings, "records")
                tensor = dataclasses.replace(settings, mesh=MeshSettings(tensor=8))
                check(run, tensor, "records")
            else:
                check(run, settings, "records")


def test_files_of_a_new_run_that_are_not_there(tmp_path):
    check_files(ExperimentSettings(initial=str(tmp_path)))
    with pytest.raises(ValueError, match=r"initial='runs/typo' is not there \(cwd "):
        check_files(ExperimentSettings(initial="runs/typo"))
    with pytest.raises(ValueError, match=r"data\.vocabulary='typo.txt' is not there"):
        check_files(ExperimentSettings(data=DataSettings(vocabulary="typo.txt")))


def joint(folder: str, **changes: object) -> ExperimentSettings:
    """Settings of two streams whose records lie in a folder."""
    video = SourceSettings(f"{folder}/videos", **changes)
    streams = (
        StreamSettings("video", 16, 8, (video,)),
        StreamSettings("image", 1, 8, (SourceSettings(f"{folder}/images"),)),
    )
    vocabulary = f"{folder}/vocab.txt"
    return ExperimentSettings(data=DataSettings(streams=streams, vocabulary=vocabulary))


@pytest.mark.parametrize(
    "settings",
    [lambda folder: ExperimentSettings(data=DataSettings(train=folder)), joint],
    ids=["one folder", "streams"],
)
def test_a_run_goes_on_where_its_records_lie_elsewhere(settings, tmp_path):
    run = tmp_path / "run"
    note(run, settings("/here"), "records")
    (run / "checkpoints" / "5").mkdir(parents=True)
    check(run, settings("/there"), "records")
    with pytest.raises(ValueError, match=r"'/here.*/there.*records: 'records', now 'others'"):
        check(run, settings("/there"), "others")


@pytest.mark.parametrize("change", [{"split": "test"}, {"weight": 2.0}], ids=repr)
def test_all_else_of_a_source_must_stay(change, tmp_path):
    note(tmp_path, joint("/here"), "records")
    (tmp_path / "checkpoints" / "5").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"other settings \(data\.streams: "):
        check(tmp_path, joint("/there", **change), "records")


@pytest.mark.parametrize(
    ("folder", "saved"),
    [("5", True), ("5.broken", True), ("5.broken2", True), ("5.orbax-checkpoint-tmp", False)],
)
def test_a_first_save_that_was_cut_off_binds_to_nothing(tmp_path, folder, saved):
    """One that was set aside does: it may be mended."""
    assert not has_run(tmp_path)
    (tmp_path / "checkpoints" / folder).mkdir(parents=True)
    assert has_run(tmp_path) == saved


def test_a_clock_of_another_version_gives_what_is_known_of_it():
    clock = Clock.of({"videos": 8, "seconds": 1.5, "epochs": 3})
    assert clock == Clock(videos=8, seconds=1.5)


def test_a_run_that_is_older_than_a_setting_goes_on_with_its_default(tmp_path):
    run, settings = tmp_path / "run", ExperimentSettings()
    note(run, settings, "records")
    (run / "checkpoints" / "5").mkdir(parents=True)
    told = json.loads((run / "settings.json").read_text("utf-8"))
    del told["model"]["text"]["cleaning"]
    (run / "settings.json").write_text(json.dumps(told), "utf-8")
    check(run, settings, "records")
    cleaned = ModelSettings(text=TextSettings(cleaning="released"))
    with pytest.raises(ValueError, match=r"model\.text\.cleaning: 'none', now 'released'"):
        check(run, ExperimentSettings(model=cleaned), "records")


@pytest.mark.parametrize("change", [{"steps": 0}, {"log_every": 0}])
def test_counts_are_checked(change):
    with pytest.raises(ValueError, match=f"ExperimentSettings.{next(iter(change))}"):
        ExperimentSettings(**change)
    with pytest.raises(ValueError, match=r"DataSettings\.batch must be .* got 0"):
        DataSettings(batch=0)


def test_a_log_drops_what_a_lost_run_wrote_after_the_checkpoint(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": float(step)})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"of": "another program"}\n{"step": 4, "lo')
    with MetricLog(tmp_path, step=2) as log:
        log.write(3, {"loss": 30.0})
        assert log.values("loss") == [1.0, 2.0, 30.0]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_a_log_drops_what_will_be_measured_again(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in (2, 4):
            log.write(step, {"loss": float(step)})
            log.write(step, {"eval/r1": float(step)})
    with MetricLog(tmp_path, step=4, without="eval/") as log:
        assert log.values("loss") == [2.0, 4.0] and log.values("eval/r1") == [2.0]


def test_a_seed_gives_the_same_new_model_and_another_seed_another(tiny):
    states = [TrainState.initialize(tiny("vit3d"), optax.sgd(1.0), seed) for seed in (0, 0, 1)]
    one, same, other = (jax.tree.leaves(state.params) for state in states)
    for a, b in zip(one, same, strict=True):
        np.testing.assert_array_equal(a, b)
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))
    assert states[0].params["temperature"][...] == np.float32(0.07)
    assert states[0].model().settings == tiny("vit3d")
