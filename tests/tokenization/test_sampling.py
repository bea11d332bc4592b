"""Which frames are sampled: the released rule, by its own output."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization import video


def test_indices_are_those_of_the_released_code(golden):
    cases = {
        match: array
        for key, array in golden("traj_graph").items()
        if (match := re.fullmatch(r"frames/middle_n(\d+)_v(\d+)", key))
    }
    assert cases
    for match, expected in cases.items():
        frames, length = map(int, match.groups())
        np.testing.assert_array_equal(video.sample_indices(length, frames), expected, match[0])


def test_a_span_gives_the_frames_of_the_released_code(golden, clips):
    """300 frames at 25 a second, from 2.0 s to 9.5 s."""
    expected = golden("traj_graph")["frames/middle_start_end"]
    path = clips.video(frames=clips.grey(300, 16, 16), fps=25)
    found = video.decode(path, frames=len(expected), start=2.0, end=9.5)
    np.testing.assert_array_equal(found.indices + 50, expected)
    np.testing.assert_allclose(found.times, expected / 25, atol=1e-5)
    levels = [clips.level(int(i)) for i in expected]
    np.testing.assert_allclose(found.rgb.mean((1, 2, 3)), levels, atol=3)


@settings(deadline=None)
@given(length=st.integers(1, 5000), frames=st.integers(1, 128))
def test_indices_are_spread_over_the_video(length, frames):
    indices = video.sample_indices(length, frames)
    assert indices.shape == (frames,)
    assert indices[0] >= 0 and indices[-1] < length
    steps = np.diff(indices[: min(frames, length)])
    assert (steps >= 1).all()
    assert steps.size == 0 or steps.max() - steps.min() <= 1
    assert (indices[min(frames, length) :] == length - 1).all()


@pytest.mark.parametrize(("length", "frames"), [(0, 4), (4, 0), (-1, 1)])
def test_nothing_to_sample_is_an_error(length, frames):
    with pytest.raises(ValueError, match=f"cannot sample {frames} frames of {length}"):
        video.sample_indices(length, frames)


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=8).map(sorted), st.integers(0, 7))
def test_frames_between_are_spread_over_the_gap(indices, most):
    gaps = video.indices_between(np.array(indices), most)
    assert len(gaps) == len(indices) - 1
    for start, end, gap in zip(indices, indices[1:], gaps, strict=False):
        assert len(gap) == max(0, min(most, end - start - 1))
        steps = np.diff([start, *gap.tolist(), end])
        if start < end:
            assert steps.min() >= 1 and steps.max() - steps.min() <= 1


@settings(deadline=None)
@given(length=st.integers(1, 200), frames=st.integers(1, 20), data=st.data())
def test_annotated_frames_are_among_the_sampled_ones(length, frames, data):
    sampled = video.sample_indices(length, frames)
    annotated = data.draw(st.lists(st.integers(0, length - 1), max_size=frames))
    found = video.with_annotated(sampled, annotated)
    assert len(found) == frames and set(annotated) <= set(found.tolist())
    assert (np.diff(found) >= 0).all()
    # No more is changed than must be.
    assert len(set(found) - set(sampled)) == len(set(annotated) - set(sampled.tolist()))
    more = list(range(length))
    if len(more) > frames:
        np.testing.assert_array_equal(video.with_annotated(sampled, more), sampled)


def test_the_nearest_sampled_frame_gives_way():
    sampled = np.array([2, 7, 12, 17])
    np.testing.assert_array_equal(video.with_annotated(sampled, [10]), [2, 7, 10, 17])
    np.testing.assert_array_equal(video.with_annotated(sampled, [7, 8]), [2, 7, 8, 17])
    np.testing.assert_array_equal(video.with_annotated(sampled, []), sampled)


def test_a_clip_around_an_annotated_second_has_its_frame(clips):
    """The frame on screen then; seconds outside the span are none."""
    path = clips.video(frames=clips.grey(60, 16, 16), fps=10)
    found = video.decode(path, frames=4, start=1.5, end=4.5, annotated=[3.04, 5.5, 0.2])
    assert 3.0 in np.round(found.times, 3).tolist() and len(found.times) == 4
    assert found.times.min() >= 1.5 and found.times.max() < 4.5


@pytest.mark.parametrize("span", [{}, {"start": 2.0}, {"end": 9.0}, {"start": 2.0, "end": 9.0}])
def test_a_second_after_the_end_of_the_video_moves_no_frame(clips, span):
    """The last frame is on screen until the video ends, not for ever."""
    path = clips.video(frames=clips.grey(60, 16, 16), fps=10)
    plain = video.decode(path, frames=4, **span)
    after = video.decode(path, frames=4, annotated=[6.0, 7.5], **span)
    np.testing.assert_array_equal(after.times, plain.times)
    last = video.decode(path, frames=4, annotated=[5.95], **span)
    assert last.times[-1] == pytest.approx(5.9) != plain.times[-1]


def test_a_second_after_the_span_moves_no_frame(clips):
    path = clips.video(frames=clips.grey(60, 16, 16), fps=10)
    plain = video.decode(path, frames=4, end=5.95)
    after = video.decode(path, frames=4, end=5.95, annotated=[5.96])
    np.testing.assert_array_equal(after.times, plain.times)
