"""The released program's rules against what it printed."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.tokenization import official
from tokenization import linking
from tokenization.trajectories import Trajectories, VideoInfo


@pytest.fixture(scope="module")
def arrays(golden):
    return golden("traj_graph")


def cases(arrays, suffix):
    found = sorted({key.split("/")[0] for key in arrays if key.endswith(suffix)})
    assert found, f"no case with {suffix}"
    return found


def clips_of(arrays, case):
    key_frames = arrays[f"{case}/key_frames"]
    return [arrays[f"{case}/clip{k}"] for k in range(len(key_frames) - 1)], key_frames


def test_correspondence_has_the_released_matches(arrays):
    old, new = arrays["iou/masks1"], arrays["iou/masks2"]
    empty = np.zeros_like(new[:1])
    found = [re.fullmatch(r"iou/index_map_(.*)", key) for key in arrays]
    variants = [match.group(1) for match in found if match]
    assert variants
    # A match comes from the frame that the masks were propagated from, the earliest there is.
    frame = int(min(arrays[f"iou/frame_map_{variant}"].min() for variant in variants))
    for variant in variants:
        threshold = float(variant[2:]) if variant.startswith("th") else 0.5
        query = np.concatenate([new, empty]) if "empty" in variant else new
        got = official.correspond(old, query, frame=frame, threshold=threshold)
        np.testing.assert_array_equal(got.token, arrays[f"iou/index_map_{variant}"], variant)
        np.testing.assert_array_equal(got.frame, arrays[f"iou/frame_map_{variant}"], variant)


def test_graph_and_correspondences(arrays):
    for case in cases(arrays, "/video_graph"):
        got = official.build_graph(*clips_of(arrays, case))
        np.testing.assert_array_equal(got.graph, arrays[f"{case}/video_graph"], case)
        for frame, parents in enumerate(got.correspondences):
            np.testing.assert_array_equal(parents.token, arrays[f"{case}/coo_token_{frame:02d}"])
            np.testing.assert_array_equal(parents.frame, arrays[f"{case}/coo_frame_{frame:02d}"])


@pytest.mark.parametrize("resize", [0, 1])
def test_id_maps(arrays, assert_golden, resize):
    for case in cases(arrays, f"/id_masks_resize{resize}"):
        expected = arrays[f"{case}/id_masks_resize{resize}"]
        clips, key_frames = clips_of(arrays, case)
        got = official.build_graph(clips, key_frames, size=expected.shape[1:] if resize else None)
        np.testing.assert_array_equal(got.ids, expected, case)
        mean = arrays[f"{case}/avg_object_num_resize{resize}"]
        assert_golden(got.objects_per_frame, mean, f"{case} objects")


def test_overlapping_ids_are_added_as_released(arrays):
    got = official.masks_to_ids(arrays["overlap/masks"], overlap="sum")
    np.testing.assert_array_equal(got, arrays["overlap/id_masks"])


@pytest.mark.parametrize("overlap", ["first", "last"])
def test_overlaps_are_settled(arrays, overlap):
    masks = arrays["overlap/masks"]
    assert masks.sum(-3).max() > 1
    got = official.masks_to_ids(masks, overlap=overlap)
    order = range(masks.shape[1])
    expected = np.zeros_like(got)
    for i in reversed(order) if overlap == "first" else order:
        expected[masks[:, i] > 0] = i + 1
    np.testing.assert_array_equal(got, expected)


def test_downsampling(arrays, assert_golden):
    masks = arrays["down/masks"]
    sizes = [key.removeprefix("down/soft_") for key in arrays if key.startswith("down/soft_")]
    assert sizes
    for size in sizes:
        soft, hard = arrays[f"down/soft_{size}"], arrays[f"down/out_{size}"]
        assert_golden(official.soft_masks(masks, *soft.shape[1:]), soft, size)
        np.testing.assert_array_equal(official.downsample_masks(masks, *hard.shape[1:]), hard)


def test_resize_keeps_a_full_mask_full_and_its_own_size():
    full = np.ones((2, 9, 13), np.uint8)
    for size in [(9, 13), (4, 5), (1, 1), (20, 31)]:
        assert official.downsample_masks(full, *size).all()
    mask = np.random.default_rng(0).integers(0, 2, (3, 9, 13)).astype(np.uint8)
    np.testing.assert_array_equal(official.downsample_masks(mask, 9, 13), mask)


def test_one_object_keeps_its_axis_when_resized():
    clip = np.ones((3, 1, 48, 48), np.uint8)
    got = official.build_graph([clip], [0, 3], size=(24, 24))
    np.testing.assert_array_equal(got.ids, np.ones((3, 24, 24)))


def test_no_object_is_an_empty_graph():
    got = official.build_graph([np.zeros((2, 0, 4, 4), np.uint8)], [0, 2])
    assert got.graph.shape == (0, 2)
    assert not got.ids.any()


def test_more_than_255_objects_do_not_wrap():
    masks = np.eye(300, dtype=np.uint8).reshape(1, 300, 15, 20)
    np.testing.assert_array_equal(official.masks_to_ids(masks).ravel(), np.arange(1, 301))
    assert official.build_graph([masks], [0, 1]).ids.max() == 300


@pytest.mark.parametrize(
    ("key_frames", "message"),
    [([1, 4], "start at frame 0"), ([0, 3], "clip 0 must have 3 frames"), ([0], "2 key frames")],
)
def test_clips_that_do_not_fit(key_frames, message):
    with pytest.raises(ValueError, match=message):
        official.build_graph([np.zeros((4, 1, 4, 4), np.uint8)], key_frames)


def test_unknown_names(annotations_unchecked):
    masks = np.zeros((1, 2, 4, 4), np.uint8)
    with pytest.raises(ValueError, match="sum, first, last"):
        official.masks_to_ids(masks, overlap="mean")
    with pytest.raises(ValueError, match="one_to_one, many_to_one"):
        official.correspond(masks[0], masks[0], frame=0, rule="best")


labels = hnp.arrays(np.int32, (3, 4, 5), elements=st.integers(0, 3))


@settings(deadline=None)
@given(st.lists(labels, min_size=1, max_size=4), st.sampled_from([0.2, 0.5, 0.8]))
def test_label_maps_link_like_the_released_masks(clips, threshold):
    """Without overlaps, linking labels and building the graph of their masks agree."""
    linked = linking.link_clips(clips, threshold=threshold, rule="many_to_one")
    masks = [(clip[:, None] == np.arange(1, 4)[:, None, None]).astype(np.uint8) for clip in clips]
    key_frames = [*range(0, 2 * len(clips), 2), len(linked)]
    pair = official.build_graph(masks, key_frames, threshold=threshold)
    info = {
        "frame_times": np.zeros(len(linked), np.float32),
        "key_frames": np.ones(len(linked), bool),
        "video": VideoInfo("v", 5, 4, 1.0, 1.0),
    }
    ours = Trajectories.from_labels(linked, **info).labels
    theirs = Trajectories.from_official(pair.ids, pair.graph, **info).labels
    # The same trajectories, up to their numbers: each pair of numbers meets only itself.
    pairs = np.unique(np.stack([ours.ravel(), theirs.ravel()], 1), axis=0)
    assert len(pairs) == len(np.unique(ours)) == len(np.unique(theirs))
