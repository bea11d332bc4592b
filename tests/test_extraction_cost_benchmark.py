"""The cost benchmark cuts frames into as many objects as it says, and adds up."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.extraction_cost import (
    Cost,
    clip_of,
    different_clips,
    from_starts,
    grid,
    one_by_one,
    report,
)
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


def costs(most: float) -> list[Cost]:
    return [
        Cost("flow", 10, 16, 1, 1.0),
        Cost("flow", 50, 16, 1, 1.8),
        Cost("flow", 200, 16, 1, most),
        Cost("flow, discover", 50, 16, 1, 3.0),
        Cost("flow", 50, 64, 1, 8.0),
        Cost("flow, discover", 50, 64, 1, 11.0),
        Cost("sam2", 10, 4, 2, 2.0),
        Cost("sam2", 200, 4, 2, 10.0),
        Cost("sam2, one by one", 10, 4, 2, 5.0),
    ]


def test_the_report_compares_most_and_fewest_objects():
    lines, flat = report(costs(1.4))
    text = "\n".join(lines)
    assert flat and "holds: the flow tracker takes 1.40 times" in text
    assert "5.0 times as long for 20 times as many objects: sublinear" in text
    assert "2.50 times the seconds of 2 clips with 10 objects together (CPU)" in text
    assert f"{8e6 * 3.0 / 3600:,.0f}" in text and "not measured" in text
    assert not report(costs(1.6))[1]
