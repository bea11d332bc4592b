"""Clips put together for a tracker of many objects: each frame once, nothing lost."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.protocols import Clip
from tokenization.trackers.clip_batches import batches, masks_of


def video(t: int, seed: int, h: int = 4, w: int = 6) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3)).astype(np.uint8)


def cut(rgb: np.ndarray, starts: list[int], labels: int = 3) -> list[Clip]:
    """Clips from start to start, each through the first frame of the next, as the pipeline's."""
    first = np.arange(rgb[0, ..., 0].size).reshape(rgb.shape[1:3]) % (labels + 1)
    ends = [start + 1 for start in starts[1:]] + [len(rgb)]
    return [
        Clip(rgb[a:b], {0: (first * 10).astype(np.int32)})
        for a, b in zip(starts, ends, strict=True)
    ]


def test_a_frame_that_two_clips_share_is_held_once():
    (batch,) = batches(cut(video(10, 0), [0, 4, 8]), frames_held=100)
    assert len(batch.frames) == 10
    assert [group.frames.shape for group in batch.groups] == [(2, 5), (1, 2)]
    (others, last) = batch.groups
    assert last.clips == (2,)
    np.testing.assert_array_equal(others.frames, [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])


def test_frames_of_other_sizes_are_other_frames():
    blank = [np.zeros((2, h, w, 3), np.uint8) for h, w in ((4, 6), (6, 4))]
    clips = [Clip(rgb, {0: np.ones(rgb.shape[1:3], np.int32)}) for rgb in blank]
    (batch,) = batches(clips, frames_held=100)
    assert [frame.shape for frame in batch.frames] == [(4, 6, 3), (6, 4, 3)]


def test_masks_are_those_of_the_first_frame():
    clips = cut(video(9, 0), [0, 4])
    (batch,) = batches(clips, frames_held=100)
    (group,) = batch.groups
    assert group.members.tolist() == [0, 0, 0, 1, 1, 1]
    assert group.labels.tolist() == [10, 20, 30, 10, 20, 30]
    first, second = masks_of(clips, group, slice(1, 5))
    np.testing.assert_array_equal(first, [clips[0].segments[0] == i for i in (20, 30)])
    np.testing.assert_array_equal(second, [clips[1].segments[0] == i for i in (10, 20)])


def test_clips_without_anything_to_follow_are_left_out():
    rgb = video(5, 0)
    nothing = Clip(rgb, {0: np.zeros(rgb.shape[1:3], np.int32)})
    image = Clip(rgb[:1], {0: np.ones(rgb.shape[1:3], np.int32)})
    assert list(batches([nothing, image], frames_held=10)) == []
    assert list(batches([], frames_held=10)) == []


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(2, 7), st.integers(0, 3)), max_size=8), st.integers(1, 12))
def test_every_clip_is_in_one_batch_with_its_own_frames(shapes, frames_held):
    clips = [cut(video(t, seed), [0], labels=1 + seed)[0] for t, seed in shapes]
    seen = []
    for batch in batches(clips, frames_held):
        contents = [frame.tobytes() for frame in batch.frames]
        assert len(set(contents)) == len(contents)
        members = [index for group in batch.groups for index in group.clips]
        assert len(contents) <= frames_held or len(members) == 1
        for group in batch.groups:
            assert (np.diff(group.members) >= 0).all()
            for number, index in enumerate(group.clips):
                frames = [batch.frames[at] for at in group.frames[number]]
                np.testing.assert_array_equal(frames, clips[index].frames)
                labels = group.labels[group.members == number]
                np.testing.assert_array_equal(labels, np.unique(clips[index].segments[0])[1:])
        seen += members
    assert sorted(seen) == list(range(len(clips)))
