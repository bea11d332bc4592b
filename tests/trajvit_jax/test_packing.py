"""Packing: every video has its slots, and what is dropped is what had to be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.data.packing import PackingSettings, first_slots, place, plan, shorten
from trajvit_jax.models.inputs import check_video
from trajvit_jax.models.settings import ModelSettings

EACH = st.sampled_from([1, 2, 4])


@st.composite
def batches(draw):
    """Counts of a batch, the shape of its rows, and tokens a trajectory."""
    group = draw(st.integers(1, 5))
    rows = draw(st.integers(1, group))
    shape = PackingSettings(group, rows, draw(st.integers(group, 60)))
    b = group * draw(st.integers(1, 4))
    counts = draw(st.lists(st.integers(0, 40), min_size=b, max_size=b))
    return np.array(counts), shape, draw(EACH)


@settings(deadline=None)
@given(batches())
def test_every_video_is_in_one_row_of_one_full_group(batch):
    counts, shape, each = batch
    made = plan(counts, shape, each=each)
    assert sorted(made.order) == list(range(len(counts)))
    groups = made.row // shape.rows
    np.testing.assert_array_equal(groups, np.arange(len(counts)) // shape.group)


@settings(deadline=None)
@given(batches())
def test_slots_are_disjoint_and_kept_and_dropped_add_up(batch):
    counts, shape, each = batch
    made = plan(counts, shape, each=each)
    np.testing.assert_array_equal(made.kept + made.dropped, counts[made.order])
    assert made.kept.min() >= 0 and made.dropped.min() >= 0
    taken = set()
    for row, start, kept in zip(made.row, made.start, made.kept, strict=True):
        own = {(row, start + i) for i in range(1 + kept * each)}
        assert not own & taken and start + kept * each < shape.slots
        taken |= own


@settings(deadline=None)
@given(batches())
def test_a_row_drops_only_what_does_not_fit_and_of_its_largest_videos(batch):
    counts, shape, each = batch
    made = plan(counts, shape, each=each)
    for row in np.unique(made.row):
        own = made.row == row
        wanted = (counts[made.order][own] * each + 1).sum()
        used = (made.kept[own] * each + 1).sum()
        if wanted <= shape.slots:
            assert made.dropped[own].sum() == 0
        else:
            assert shape.slots - each < used <= shape.slots
            cut = made.dropped[own] > 0
            # Nobody keeps more than one that was cut, but for the odd slot.
            assert made.kept[own].max() <= made.kept[own][cut].min() + 1


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 4), st.integers(0, 20), EACH)
def test_equal_videos_that_fit_lose_nothing(groups, rows, count, each):
    shape = PackingSettings(2 * rows, rows, max(2 * (count * each + 1), 2 * rows))
    made = plan(np.full(groups * 2 * rows, count), shape, each=each)
    assert made.dropped.sum() == 0
    assert np.bincount(made.row).tolist() == [2] * (groups * rows)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100), min_size=16, max_size=16), st.randoms())
def test_rows_fill_as_evenly_whatever_the_order_of_the_batch(counts, random):
    shape = PackingSettings(4, 2, 2000)
    made = plan(np.array(counts), shape)
    demand = np.bincount(made.row, made.kept + 1, minlength=8)
    shuffled = random.sample(counts, len(counts))
    other = plan(np.array(shuffled), shape)
    np.testing.assert_array_equal(demand, np.bincount(other.row, other.kept + 1, minlength=8))


@settings(deadline=None)
@given(batches())
def test_rows_hold_what_was_planned(batch):
    counts, shape, each = batch
    made = plan(counts, shape, each=each)
    rows = place(made, shape, each=each)
    assert rows.video.shape == (len(counts) // shape.group, shape.rows, shape.slots)
    expected = np.zeros(rows.video.shape, np.int32)
    query = expected.copy()
    for i, (row, start, kept) in enumerate(zip(made.row, made.start, made.kept, strict=True)):
        group, number = divmod(i, shape.group)
        assert rows.row[group, number] == row % shape.rows
        line = expected[group, row % shape.rows], query[group, row % shape.rows]
        line[0][start : start + 1 + kept * each] = number + 1
        for first in first_slots(int(start), int(kept), each=each):
            line[1][first : first + each] = np.arange(1, each + 1)
    np.testing.assert_array_equal(rows.video, expected)
    np.testing.assert_array_equal(rows.query, query)
    b = len(counts)
    video = np.zeros((b, 1, 4, 4, 3), np.uint8)
    check_video(video, np.zeros((b, 1, 1, 1), np.int32), ModelSettings(), rows)


def test_the_largest_videos_are_apart():
    made = plan(np.array([10, 90, 95, 5, 80, 20, 100, 15]), PackingSettings(4, 2, 120))
    assert np.bincount(made.row, made.kept + 1).tolist() == [107, 107, 107, 102]
    assert made.dropped.sum() == 0


def test_an_overfull_row_cuts_its_largest_to_a_common_limit():
    made = plan(np.array([3, 50, 30]), PackingSettings(3, 1, 43))
    assert made.kept.tolist() == [3, 19, 18] and made.dropped.tolist() == [0, 31, 12]


@given(st.lists(st.integers(0, 300), min_size=1, max_size=9), st.integers(0, 1000))
def test_a_cut_fills_the_room_whatever_the_common_limit_leaves_of_it(counts, room):
    kept = shorten(np.array(counts), room)
    assert kept.sum() == min(room, sum(counts))
    limit = kept.max()
    assert all(k == n or k >= limit - 1 for k, n in zip(kept, counts, strict=True))


def test_image_batches_are_planned_too():
    counts = np.random.default_rng(0).integers(5, 60, 4096)
    made = plan(counts, PackingSettings(8, 1, 320))
    assert made.dropped.sum() == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"group": 2, "rows": 3}, "the last of 3 rows"),
        ({"slots": 7}, "within 8"),
        ({"slots": 0}, "slots must be"),
        ({"slots": 70_000}, "got 70000"),
        ({"group": 0}, "group must be"),
    ],
)
def test_impossible_shapes_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        PackingSettings(**changes)


def test_batches_that_cannot_be_planned_are_refused():
    with pytest.raises(ValueError, match="12 videos is not a multiple of groups of 8"):
        plan(np.zeros(12, int), PackingSettings())
    with pytest.raises(ValueError, match="-2 trajectories"):
        plan(np.array([1, -2]), PackingSettings(2, 1, 8))
