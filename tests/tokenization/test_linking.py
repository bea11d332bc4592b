"""Linking against plain loops over pairs of masks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokenization import linking

maps = hnp.arrays(np.int32, (5, 6), elements=st.integers(0, 5))
matrices = hnp.arrays(
    np.float64,
    st.tuples(st.integers(0, 5), st.integers(0, 5)),
    elements=st.sampled_from([0.0, 0.2, 0.5, 0.6, 0.8, 0.9, 1.0]),
)


@settings(deadline=None)
@given(maps, maps)
def test_overlaps_is_the_iou_of_every_pair(old, new):
    old_ids, new_ids, iou = linking.overlaps(old * 1000, new)
    np.testing.assert_array_equal(old_ids, np.setdiff1d(old, 0) * 1000)
    np.testing.assert_array_equal(new_ids, np.setdiff1d(new, 0))
    assert iou.shape == (len(old_ids), len(new_ids))
    for row, i in enumerate(old_ids):
        for column, j in enumerate(new_ids):
            a, b = old * 1000 == i, new == j
            assert iou[row, column] == pytest.approx((a & b).sum() / (a | b).sum())


@settings(deadline=None)
@given(matrices, st.sampled_from([0.0, 0.5, 0.8]))
def test_one_to_one_is_best_first(iou, threshold):
    match = linking.match_one_to_one(iou, threshold)
    left = iou.copy()
    expected = np.full(iou.shape[1], -1)
    while left.size and left.max() > threshold:
        row, column = np.unravel_index(left.argmax(), left.shape)
        expected[column] = row
        left[row] = left[:, column] = -1
    np.testing.assert_array_equal(match, expected)


@settings(deadline=None)
@given(matrices, st.sampled_from([0.5, 0.8]))
def test_many_to_one_is_the_best_old_segment(iou, threshold):
    match = linking.match_many_to_one(iou, threshold)
    for column, row in enumerate(match):
        best = iou[:, column].max(initial=-1)
        if row < 0:
            assert best < threshold
        else:
            assert iou[row, column] == best >= threshold


def halves(top, bottom, frames):
    clip = np.zeros((frames, 4, 4), np.int32)
    clip[:, :2], clip[:, 2:] = top, bottom
    return clip


@pytest.mark.parametrize("rule", ["one_to_one", "many_to_one"])
def test_same_segments_keep_their_identity(rule):
    clips = [halves(1, 2, 4), halves(2, 1, 3), halves(9, 4, 2)]
    got = linking.link_clips(clips, rule=rule)
    np.testing.assert_array_equal(got, halves(1, 2, 3 + 2 + 2))


def test_the_extra_frame_decides_and_is_dropped():
    first = halves(1, 2, 3)
    first[-1] = halves(2, 1, 1)  # They swap places at the next clip's first frame.
    got = linking.link_clips([first, halves(1, 2, 2)])
    np.testing.assert_array_equal(got, np.concatenate([halves(1, 2, 2), halves(2, 1, 2)]))


def test_unlike_segments_are_new():
    got = linking.link_clips([halves(1, 2, 3), np.ones((2, 4, 4), np.int32)])
    np.testing.assert_array_equal(got[2:], np.full((2, 4, 4), 3))


def test_iou_equal_to_the_threshold():
    """IoU 1/2: the paper asks for more, the released program does not."""
    old, new = np.zeros((2, 1, 4), np.int32), np.zeros((1, 1, 4), np.int32)
    old[..., :2] = 1
    new[..., :1] = 1
    link = {"threshold": 0.5}
    assert linking.link_clips([old, new], **link)[-1].max() == 2
    assert linking.link_clips([old, new], **link, rule="many_to_one")[-1].max() == 1


def test_several_claims_on_one_trajectory():
    old, new = np.ones((2, 1, 4), np.int32), np.array([[[1, 1, 2, 2]]], np.int32)
    one = linking.link_clips([old, new], threshold=0.4)
    np.testing.assert_array_equal(one[-1], [[1, 1, 2, 2]])
    many = linking.link_clips([old, new], threshold=0.4, rule="many_to_one")
    np.testing.assert_array_equal(many[-1], [[0, 0, 1, 1]])


@settings(deadline=None)
@given(
    st.lists(
        hnp.arrays(np.int32, st.tuples(st.integers(2, 3), st.just(3), st.just(4)),
                   elements=st.integers(0, 4)),
        min_size=1, max_size=4,
    )
)  # fmt: skip
def test_linking_only_renames_within_a_clip(clips):
    got = linking.link_clips(clips)
    assert got.dtype == np.int32
    owned = [*(clip[:-1] for clip in clips[:-1]), clips[-1]]
    bounds = np.cumsum([0, *map(len, owned)])
    assert len(got) == bounds[-1]
    for clip, a, b in zip(owned, bounds, bounds[1:], strict=False):
        pairs = np.unique(np.stack([clip.ravel(), got[a:b].ravel()], 1), axis=0)
        assert len(pairs) == len(np.unique(clip)) == len(np.unique(got[a:b]))
        np.testing.assert_array_equal(got[a:b] == 0, clip == 0)


def test_empty_maps_link():
    empty = np.zeros((2, 4, 4), np.int32)
    for rule in ("one_to_one", "many_to_one"):
        got = linking.link_clips([empty, halves(1, 2, 2), empty], rule=rule)
        np.testing.assert_array_equal(np.unique(got), [0, 1, 2])


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        ([], "no clip"),
        ([halves(1, 2, 1), halves(1, 2, 1)], "clip 0 of 2 has 1 frames"),
        ([halves(1, 2, 2), halves(1, 2, 0)], "clip 1 of 2 has 0 frames"),
        ([halves(1, 2, 2), np.ones((1, 2, 4), np.int32)], "clip 1 has frames of 2x4"),
        ([-halves(1, 2, 2)], "clip 0 has negative label -2"),
    ],
)
def test_clips_that_cannot_be_linked(annotations_unchecked, clips, message):
    with pytest.raises(ValueError, match=message):
        linking.link_clips(clips)


def test_unknown_rule(annotations_unchecked):
    with pytest.raises(ValueError, match="'best'; known: one_to_one, many_to_one"):
        linking.link_clips([halves(1, 2, 2)], rule="best")
