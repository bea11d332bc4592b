"""Views of stored videos, and fewer of their frames."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from tokenization.records import Boxes
from tokenization.sampling import sample_indices
from tokenization.shards import write_records
from trajvit_jax.data.clips import Clips, view
from trajvit_jax.data.index import find_place, read_index
from trajvit_jax.data.source import open_records
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.data.unusable import UnusableRecord, read_record
from trajvit_jax.evals.boxes import boxed_frames


def test_views_are_parts_that_follow_one_another(toy_record):
    record = toy_record(0, frames=12)
    parts = [view(record, number, frames=4, views=3) for number in range(3)]
    np.testing.assert_array_equal(np.concatenate([one.frames for one in parts]), record.frames)
    times = np.concatenate([one.trajectories.frame_times for one in parts])
    np.testing.assert_array_equal(times, record.trajectories.frame_times)
    assert {one.captions for one in parts} == {record.captions}
    for number, one in enumerate(parts):
        labels = record.trajectories.labels[4 * number : 4 * number + 4]
        np.testing.assert_array_equal(one.trajectories.labels > 1, labels > 1)


def test_fewer_frames_are_those_that_extraction_would_take(toy_record):
    record = toy_record(0, frames=12)
    few = view(record, 0, frames=5)
    np.testing.assert_array_equal(few.frames, record.frames[sample_indices(12, 5)])
    second = view(record, 1, frames=3, views=2)
    np.testing.assert_array_equal(second.frames, record.frames[6 + sample_indices(6, 3)])
    assert view(record, 0, frames=12) is record


def test_an_annotated_frame_stays(toy_record):
    """Of the stored frames at 0, 1, .. 11 s, that of 6 s."""
    boxes = Boxes(np.array([[0, 0, 1, 1]], np.float32), np.array([6.0], np.float32), ("walk",))
    record = dataclasses.replace(toy_record(0, frames=12), boxes=boxes)
    assert 6.0 not in view(toy_record(0, frames=12), 0, frames=4).trajectories.frame_times
    few = view(record, 0, frames=4)
    assert len(few.frames) == 4
    [found] = boxed_frames(few)
    assert few.trajectories.frame_times[found.frame] == 6.0
    np.testing.assert_array_equal(few.frames[found.frame], record.frames[6])


def test_too_few_frames(toy_record):
    with pytest.raises(UnusableRecord, match="has 8 frames, 3 views of 4 need 12"):
        view(toy_record(0, frames=8), 0, frames=4, views=3)
    clips = Clips([toy_record(0, frames=8)], 4, 3)
    with pytest.raises(UnusableRecord, match="has 8 frames"):
        read_record(clips, 2)


def test_what_is_known_of_a_source_is_known_of_its_views(toy_record, tmp_path):
    write_records(tmp_path, [toy_record(i, frames=8) for i in range(3)], split="test")
    source = open_records(tmp_path, "test")
    clips = Clips(source, 4, 2)
    assert len(clips) == 6 and clips[5].id == "clip02"
    assert [one.id for one in clips[1:3]] == ["clip00", "clip01"]
    index = read_index(clips)
    assert list(index.frames) == [4]
    assert find_place(clips, index, 5).id == "clip02"
    np.testing.assert_array_equal(trajectory_counts(clips), np.repeat(source.counts, 2))
