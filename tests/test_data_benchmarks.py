"""The benchmarks of packing and reading measure what they say."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks import input_pipeline, packing
from benchmarks.parts import data_wait
from tokenization.records import open_records
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.row_fit import fit
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings

BATCHES = [np.array([1, 3, 5, 9]), np.array([9, 1, 1, 1])]


def test_padding_fills_what_the_mean_fills():
    measured = packing.padded(BATCHES, 9)
    assert measured.slots == 10 and measured.used == pytest.approx((30 / 8 + 1) / 10)


def test_buckets_pad_to_their_longest():
    measured = packing.bucketed([np.array([1, 1, 2, 2, 3, 3, 9, 9])], 9)
    assert measured.programs == 4
    assert measured.slots == pytest.approx(np.mean([2, 2, 3, 3, 4, 4, 10, 10]))
    assert measured.used == 1.0


def test_first_fit_takes_videos_as_they_come_and_packing_does_not():
    shape = PackingSettings(group=2, rows=1, slots=12)
    batch = [np.array([9, 9, 1, 1])]
    first, planned = packing.first_fit(batch, shape), packing.packed(fit(batch, shape))
    assert first.dropped == pytest.approx(8 / 20) and planned.dropped == 0
    assert first.used == pytest.approx(16 / 24) and planned.used == 1.0
    assert first.slots == planned.slots == 6


@pytest.mark.parametrize(("rows", "code"), [("1", 0), ("8", 1)])
def test_the_exit_code_tells_whether_packing_holds_its_bounds(rows, code, tmp_path, capsys):
    report = tmp_path / "packing.json"
    arguments = ["--batches=40", f"--rows={rows}", f"--json={report}"]
    assert packing.main(arguments) == code
    assert capsys.readouterr().out.endswith("all bounds hold\n") == (code == 0)
    assert json.loads(report.read_text())["bounds_hold"] is (code == 0)


class Work:
    """A function within a function, each busy for a while."""

    def outer(self) -> None:
        spin(0.02)
        self.inner()

    def inner(self) -> None:
        spin(0.04)


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_clocks_leave_nested_stages_out():
    before = Work.outer
    with input_pipeline.cpu_clocks({"outer": (Work, "outer"), "inner": (Work, "inner")}) as seconds:
        Work().outer()
    assert seconds["inner"] >= 0.04 and 0.02 <= seconds["outer"] < 0.04
    assert Work.outer is before


def test_every_stage_of_reading_is_timed(tmp_path):
    input_pipeline.make_records(tmp_path, 4, 2, 10)
    source, model = open_records(tmp_path), ModelSettings(frames=2)
    text = WordPiece.train(["a drifting picture"], 8)
    stages = input_pipeline.by_stage(source, model, text, resize=True)
    assert stages.videos == 4 and min(stages.seconds.values()) >= 0
    missing = [name for name, seconds in stages.seconds.items() if seconds == 0]
    assert missing == []
    assert set(input_pipeline.reads(source)) == {"one by one", "32 at once"}


def line(step, seconds, waited):
    return {"step": step, "videos_a_second": 32 / seconds, "data_wait": waited / seconds}


def test_waits_are_a_share_of_the_time_of_settled_steps():
    lines = [line(10, 1.0, 0.9), line(11, 3.0, 0.0), {"step": 11, "loss": 1.0}, line(12, 1.0, 0.4)]
    found = data_wait.waits("vit3d", lines, 32)
    assert (found.steps, found.step) == (2, 2.0)
    assert found.share == pytest.approx(0.1) and found.worst == pytest.approx(0.4)
    assert not found.holds and data_wait.waits("vit3d", lines[:2], 32).holds
    with pytest.raises(ValueError, match="no step after 10 told how long it waited"):
        data_wait.waits("vit3d", lines[:1], 32)


@pytest.mark.parametrize(("share", "quick", "code"), [(0.04, 0, 0), (0.06, 0, 1), (0.06, 1, 0)])
def test_the_exit_code_tells_whether_the_demo_waits_for_data(
    share, quick, code, monkeypatch, tmp_path, capsys
):
    records = tmp_path / "records"
    input_pipeline.make_records(records, 4, 2, 4, size=32)

    def measure(folder, frames, model, steps, **how):
        assert (folder, frames, how) == (records, 2, {"batch": 8, "quick": True} if quick else {})
        return data_wait.Waits(model, steps, 0.5, share if model == "vit3d" else 0.0, 0.1)

    monkeypatch.setattr(input_pipeline, "measure", lambda *_: {})
    monkeypatch.setattr(data_wait, "measure", measure)
    report = tmp_path / "input.json"
    arguments = [f"--demo={records}", f"--records={records}", f"--json={report}"]
    assert input_pipeline.main(arguments + ["--quick"] * quick) == code
    said = capsys.readouterr().out
    assert ("bound 5%" in said) is not bool(quick) and ("DOES NOT HOLD" in said) is bool(code)
    assert json.loads(report.read_text())["demo"][-1]["share"] == share


@pytest.mark.slow
def test_the_demo_s_models_tell_how_long_they_wait(tmp_path):
    for split in ("train", "test"):
        input_pipeline.make_records(tmp_path, 16, 8, 13, size=64, split=split)
    steps = data_wait.UNSETTLED + 2
    found = data_wait.measure(tmp_path, 8, "trajvit", steps, batch=8, quick=True)
    assert found.steps == 2 and found.step > 0 and 0 <= found.share <= found.worst <= 1
