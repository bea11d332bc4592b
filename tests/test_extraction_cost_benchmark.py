"""The cost benchmark cuts frames into as many objects as it says, and adds up."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extraction_cost
from benchmarks.extraction_cost import (
    Cost,
    Progress,
    Source,
    Step,
    clip_of,
    different_clips,
    flow_steps,
    from_starts,
    grid,
    learned_steps,
    one_by_one,
    report,
)
from tokenization.pipeline import PipelineSettings
from tokenization.trackers.clip_batches import batches
from tokenization.trackers.flow import FlowTracker
from tokenization.trajectories import VideoInfo
from tokenization.video import Frames


@pytest.mark.parametrize("objects", [1, 7, 10, 50, 200])
def test_a_grid_has_as_many_blocks_of_about_one_size(objects: int):
    labels = grid(144, 256, objects)
    areas = np.bincount(labels.ravel())[1:]
    assert len(areas) == objects and areas.min() > 0
    assert areas.max() < 2.5 * areas.min()


def made_frames(frames: int) -> Frames:
    rgb = np.random.default_rng(0).integers(0, 256, (frames, 18, 32, 3)).astype(np.uint8)
    times = np.arange(frames, dtype=np.float32)
    return Frames(rgb, times, np.arange(frames), VideoInfo("made", 32, 18, 1.0, 4.0))


def test_every_frame_that_labels_start_in_has_the_objects():
    clip = from_starts(clip_of(made_frames(7), 5), FlowTracker())
    assert sorted(clip.segments) == [0, 3, 6]
    assert all(np.array_equal(its, grid(18, 32, 5)) for its in clip.segments.values())


def test_clips_share_no_frame_and_their_objects_come_one_by_one():
    """Equal frames are encoded once, which would make work together look cheaper than it is."""
    frames = made_frames(4)
    clips = different_clips(frames, 5, clips=3)
    (batch,) = batches(clips, frames_held=512)
    assert len(batch.frames) == 3 * 4
    singles = one_by_one(clips[1])
    assert len(singles) == 5
    np.testing.assert_array_equal(sum(one.segments[0] for one in singles), clips[1].segments[0])
    assert all(len(np.unique(one.segments[0])) == 2 for one in singles)


def costs(flow: float = 1.4, discover: float = 3.5, sam2: float = 10.0) -> list[Cost]:
    """Those of the most objects are given."""
    return [
        Cost("flow", 10, 16, 1, 1.0),
        Cost("flow", 50, 16, 1, 1.8),
        Cost("flow", 200, 16, 1, flow),
        Cost("flow, discover", 10, 16, 1, 2.5),
        Cost("flow, discover", 50, 16, 1, 3.0),
        Cost("flow, discover", 200, 16, 1, discover),
        Cost("flow", 50, 64, 1, 8.0),
        Cost("flow, discover", 50, 64, 1, 11.0),
        Cost("sam2", 10, 16, 1, 2.0),
        Cost("sam2", 200, 16, 1, sam2),
        Cost("sam2", 10, 64, 1, 90.0),
        Cost("sam2, together", 10, 16, 2, 1.5),
        Cost("sam2, one by one", 10, 16, 2, 3.0),
    ]


def test_the_report_compares_most_and_fewest_objects():
    lines, kept = report(costs())
    text = "\n".join(lines)
    assert kept and "FAILS" not in text
    assert "holds: flow: 1.40 times" in text and "\nflow, discover: 1.40 times" in text
    assert "holds: sam2: 5.0 times as long for 20 times as many objects" in text
    assert "2.00 times the seconds of 2 clips with 10 objects together (CPU)" in text
    assert f"{8e6 * 3.0 / 3600:,.0f}" in text and "not measured" in text


@pytest.mark.parametrize(
    ("most", "way"),
    [({"flow": 1.6}, "flow"), ({"sam2": 40.0}, "sam2")],
    ids=str,
)
def test_each_bound_can_fail(most: dict[str, float], way: str):
    lines, kept = report(costs(**most))
    assert not kept
    assert [said.split(": ")[1] for said in lines if said.startswith("FAILS")] == [way]


def test_without_networks_only_the_flow_tracker_is_judged():
    lines, kept = report([one for one in costs() if one.way.startswith("flow")])
    assert kept and not any("sam2: " in said for said in lines)


class _Source(Source):
    """Frames that nobody renders."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def frames(self, number: int) -> Frames:
        self.asked.append(number)
        return made_frames(number)


def test_steps_go_over_objects_at_the_fewest_frames_and_then_over_frames():
    source = _Source()
    steps = flow_steps(source, (2, 3, 4), (5, 6), PipelineSettings())
    assert not source.asked  # clips are made when it is their turn
    plan = [(step.cost.way, step.cost.objects, step.cost.frames) for step in steps]
    for way in ("flow", "flow, discover"):
        assert [rest for its, *rest in plan if its == way] == [[2, 5], [3, 5], [4, 5], [3, 6]]
    (clip,) = steps[1].clips()
    assert sorted(clip.segments) == [0, 2, 4] and clip.segments[0].max() == 2
    ticks = iter([10.0, 12.5])
    assert steps[0].run(lambda: next(ticks)) == Cost("flow", 2, 5, 1, 2.5)


@pytest.mark.torch
def test_networks_get_objects_together_and_one_by_one():
    pytest.importorskip("sam2", reason="sam2 is not installed; `make sam2` installs it")
    steps = learned_steps(_Source(), (2, 3), (2, 4), 128, 2)
    plan = [(one.cost.way, one.cost.objects, one.cost.frames, one.cost.clips) for one in steps]
    assert plan == [
        ("sam2", 2, 2, 1),
        ("sam2", 3, 2, 1),
        ("sam2", 2, 4, 1),
        ("sam2, together", 2, 2, 2),
        ("sam2, one by one", 2, 2, 2),
    ]
    assert steps[3].work < steps[4].work and len(steps[3].clips()) == 2
    assert steps[4].run().seconds > 0


def test_what_is_left_is_told_by_what_was_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ticks = iter([0.0, 120.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(ticks))
    progress = Progress(240.0)
    progress.did(60.0)
    assert capsys.readouterr().err == "about 4.0 min left\nabout 6.0 min left\n"


def test_the_exit_code_is_that_of_the_bounds_and_rows_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def steps(*_: object) -> list[Step]:
        def step(way: str, objects: int) -> Step:
            def track(_: object) -> None:
                spent[0] += objects

            return Step(Cost(way, objects, 16, 1), 1.0, track, list)

        return [step(way, n) for way in ("flow", "flow, discover") for n in (10, 100)]

    spent = [0.0]
    monkeypatch.setattr(extraction_cost, "flow_steps", steps)
    monkeypatch.setattr("time.process_time", lambda: spent[0])
    assert extraction_cost.main([f"--json={tmp_path}/kept.json"]) == 1  # 100 objects, ten times
    assert extraction_cost.main(["--quick"]) == 0
    kept = json.loads((tmp_path / "kept.json").read_text())["costs"]
    assert [(one["way"], one["objects"], one["seconds"]) for one in kept] == [
        ("flow", 10, 10.0),
        ("flow", 100, 100.0),
        ("flow, discover", 10, 10.0),
        ("flow, discover", 100, 100.0),
    ]
    assert "FAILS: flow: 10.00 times as long" in capsys.readouterr().out
