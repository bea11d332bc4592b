"""The benchmarks of packing and reading measure what they say."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

from benchmarks import input_pipeline, packing
from tokenization.records import open_records
from trajvit_jax.data.packing import PackingSettings
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
    first, planned = packing.first_fit(batch, shape), packing.packed(batch, shape)
    assert first.dropped == pytest.approx(8 / 20) and planned.dropped == 0
    assert first.used == pytest.approx(16 / 24) and planned.used == 1.0
    assert first.slots == planned.slots == 6


@pytest.mark.parametrize(("rows", "code"), [("1", 0), ("8", 1)])
def test_the_exit_code_tells_whether_packing_holds_its_bounds(rows, code, tmp_path, capsys):
    report = tmp_path / "packing.json"
    arguments = ["--batches=4", f"--rows={rows}", f"--json={report}"]
    assert packing.main(arguments) == code
    assert ("DOES NOT HOLD" in capsys.readouterr().out) == bool(code)
    assert json.loads(report.read_text())["bound_holds"] is (code == 0)


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
    with input_pipeline.clocks({"outer": (Work, "outer"), "inner": (Work, "inner")}) as seconds:
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
