"""Segments: sums, areas, boxes and centres against loops over masks, and what stays apart."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.ops.interpolation import resize_bilinear
from trajvit_jax.ops.segments import Segments

SHAPE, SLOTS = (2, 3, 5, 4), 6


@jax.jit
def measure(segments, values):
    return {
        "sums": segments.sums(values),
        "areas": segments.areas(),
        "boxes": segments.boxes(),
        "centers": segments.centers(),
    }


def loop(labels, values, slots):
    """The same, one mask at a time."""
    b, t, h, w = labels.shape
    tails = {"sums": values.shape[-1:], "areas": (), "boxes": (4,), "centers": (2,)}
    out = {name: np.zeros((b, slots, t, *tail)) for name, tail in tails.items()}
    for i, slot, frame in np.ndindex(b, slots, t):
        y, x = np.nonzero(labels[i, frame] == slot)
        if slot == 0 or not x.size:
            continue
        where = (i, slot, frame)
        out["sums"][where] = values[i, frame, y, x].sum(0)
        out["areas"][where] = x.size
        out["boxes"][where] = x.min() / w, y.min() / h, (x.max() + 1) / w, (y.max() + 1) / h
        out["centers"][where] = x.mean() / w, y.mean() / h
    return out


def random_labels(shape, slots, seed=0):
    return np.random.default_rng(seed).integers(0, slots, shape).astype(np.int32)


def random_values(shape, channels=3, seed=1):
    return np.random.default_rng(seed).normal(size=(*shape, channels)).astype(np.float32)


@pytest.mark.parametrize(
    ("labels", "slots"),
    [
        pytest.param(random_labels(SHAPE, SLOTS), SLOTS, id="random"),
        pytest.param(random_labels(SHAPE, 3), SLOTS, id="empty slots"),
        pytest.param(np.full(SHAPE, 2, np.int32), SLOTS, id="one covers all"),
        pytest.param(np.zeros(SHAPE, np.int32), SLOTS, id="none"),
        pytest.param(random_labels((1, 2, 20, 20), 301), 301, id="300 trajectories"),
        pytest.param(random_labels((3, 1, 4, 6), 4), 4, id="images"),
    ],
)
def test_measures_equal_a_loop_over_masks(labels, slots):
    values = random_values(labels.shape)
    actual = measure(Segments.of(jnp.asarray(labels), slots), values)
    expected = loop(labels, values, slots)
    np.testing.assert_array_equal(actual["areas"], expected["areas"])
    for name in ("sums", "boxes", "centers"):
        np.testing.assert_allclose(actual[name], expected[name], atol=1e-5, err_msg=name)
    absent = expected["areas"] == 0
    assert not any(np.asarray(array)[absent].any() for array in actual.values())


def test_boxes_and_areas_equal_those_of_trajectories():
    labels = random_labels((4, 6, 8), 9).astype(np.uint16)
    labels[2] = 0
    trajectories = Trajectories(
        labels, np.zeros(4, np.float32), np.arange(4) == 0, VideoInfo("v", 8, 6, 1.0, 4.0)
    )
    segments = Segments.of(jnp.asarray(labels[None]), len(trajectories) + 1)
    actual = measure(segments, random_values((1, *labels.shape)))
    np.testing.assert_array_equal(actual["areas"][0, 1:], trajectories.areas())
    np.testing.assert_allclose(actual["boxes"][0, 1:], trajectories.boxes(), atol=1e-7)


def test_videos_of_one_row_are_measured_as_if_alone():
    labels, values = random_labels((3, *SHAPE[1:]), 4), random_values((3, *SHAPE[1:]))
    alone = loop(labels, values, 4)
    # Videos 0 and 2 share row 1, slots 1.. and 5..; video 1 has row 0 to itself.
    row, first = np.array([1, 0, 1]), np.array([0, 0, 4])
    packed = np.where(labels > 0, labels + first[:, None, None, None], 0)
    actual = measure(Segments.of(jnp.asarray(packed), 9, row=jnp.asarray(row), rows=2), values)
    for name, array in actual.items():
        expected = np.zeros(array.shape)
        for video in range(3):
            slots = slice(first[video] + 1, first[video] + 4)
            expected[row[video], slots] = alone[name][video, 1:]
        np.testing.assert_allclose(array, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("grid", [(5, 4), (3, 2), (1, 1), (7, 9)])
@pytest.mark.parametrize("packed", [None, False, True], ids=["rows", "packed", "bounded"])
def test_upsampled_sums_equal_sums_of_what_is_upsampled(grid, packed):
    labels = random_labels(SHAPE, 3)
    segments = Segments.of(jnp.asarray(labels), 3)
    if packed is not None:
        segments = packed_segments(labels, 3, spans=packed)
    values = jnp.asarray(random_values((*SHAPE[:2], *grid)))
    plain, fast = jax.jit(
        lambda segments, values: (
            segments.sums(resize_bilinear(values, *segments.grid)),
            segments.upsampled_sums(values),
        )
    )(segments, values)
    assert fast.shape == ((2, 3) if packed is None else (1, 6)) + (SHAPE[1], 3)
    np.testing.assert_allclose(fast, plain, atol=1e-5)


def test_coarse_masks_weigh_every_cell_of_a_segment_once():
    labels = random_labels(SHAPE, SLOTS)
    masks = np.asarray(Segments.of(jnp.asarray(labels), SLOTS).coarse_masks(2, 3))
    areas = loop(labels, random_values(SHAPE), SLOTS)["areas"]
    np.testing.assert_allclose(masks.sum(-1).transpose(0, 2, 1), areas, atol=1e-5)
    assert not masks[:, :, 0].any()


@pytest.mark.parametrize("outside", [-1, -300, SLOTS, SLOTS + 1, 2**30])
def test_labels_outside_the_slots_reach_no_segment(outside):
    labels, values = random_labels(SHAPE, SLOTS), random_values(SHAPE)
    corner = (0, 1, slice(0, 2), slice(0, 2))
    labels[corner] = 0

    @jax.jit
    def run(labels, values):
        segments = Segments.of(labels, SLOTS)
        coarse = segments.upsampled_sums(values[:, :, ::2, ::2])
        return {**measure(segments, values), "coarse": coarse}

    expected = run(labels, values)
    labels[corner] = outside
    jax.tree.map(np.testing.assert_array_equal, run(labels, values), expected)


@pytest.mark.parametrize(
    ("dtype", "slots"), [(np.uint8, 256), (np.uint8, 300), (np.int8, 128), (np.uint16, 65_536)]
)
def test_narrow_labels_are_compared_with_more_slots_than_they_count(dtype, slots):
    labels = np.random.default_rng(0).integers(0, 100, (1, 2, 4, 4))
    narrow = Segments.of(jnp.asarray(labels, dtype), slots)
    np.testing.assert_array_equal(narrow.labels, labels)
    assert narrow.labels.dtype == jnp.int32


def test_a_video_of_a_row_has_no_slots_but_its_own():
    """Slots 4.. of 9, three at most: its CLS, two trajectories."""
    labels = np.tile(np.arange(-1, 11, dtype=np.int8).reshape(1, 1, 3, 4), (2, 1, 1, 1))
    row, first = jnp.zeros(2, jnp.int32), jnp.asarray([4, 7])
    segments = Segments.of(jnp.asarray(labels), 9, row=row, rows=1, first=first, span=3)
    assert set(np.unique(segments.labels[0])) == {0, 5, 6}
    assert set(np.unique(segments.labels[1])) == {0, 8}


def packed_segments(labels, slots, *, spans):
    """The same labels as if all videos shared one row, with and without a bound on their slots."""
    b = len(labels)
    first = np.arange(b) * slots
    packed = np.where(labels > 0, labels + first[:, None, None, None], 0)
    row = {"row": jnp.zeros(b, jnp.int32), "rows": 1}
    where = {"first": jnp.asarray(first), "span": slots + 2} if spans else {}
    return Segments.of(jnp.asarray(packed), b * slots, **row, **where)


@pytest.mark.parametrize("spans", [False, True])
def test_what_is_no_number_stays_in_its_video(spans):
    """Slots that the first video could have, but has not, are the second's."""
    labels = random_labels(SHAPE, SLOTS)
    labels[0, 0, :2] = 1
    values = random_values((*SHAPE[:2], 2, 2))
    values[0, 0, 0, 0] = np.nan
    segments = packed_segments(labels, SLOTS, spans=spans)
    sums = np.asarray(jax.jit(Segments.upsampled_sums)(segments, values))[0]
    assert np.isnan(sums[1, 0]).any()
    assert np.isfinite(sums[:, 1:]).all() and np.isfinite(sums[SLOTS:]).all()


def test_masks_that_indices_cannot_number_are_refused():
    def masks(frames):
        labels = jax.ShapeDtypeStruct((1, frames, 4, 4), jnp.int32)
        jax.eval_shape(lambda labels: Segments.of(labels, 1024).coarse_masks(32, 32), labels)

    with pytest.raises(ValueError, match="1 videos of 2048 frames with 1024 slots on a 32x32 grid"):
        masks(2048)
    masks(2047)


def test_sums_of_bfloat16_are_exact_in_float32():
    segments = Segments.of(jnp.ones((1, 1, 56, 56), jnp.uint16), 2)
    measured = measure(segments, jnp.ones((1, 1, 56, 56, 1), jnp.bfloat16))
    assert measured["sums"].dtype == measured["areas"].dtype == jnp.float32
    assert float(measured["sums"][0, 1, 0, 0]) == float(measured["areas"][0, 1, 0]) == 3136
    coarse = jax.jit(Segments.upsampled_sums)(segments, jnp.ones((1, 1, 7, 7, 1), jnp.bfloat16))
    assert float(coarse[0, 1, 0, 0]) == 3136


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_flipped_labels_have_mirrored_boxes_and_reversed_ones_reversed(seed):
    labels, values = random_labels(SHAPE, SLOTS, seed), random_values(SHAPE, seed=seed)
    before = measure(Segments.of(jnp.asarray(labels), SLOTS), values)
    mirrored = measure(Segments.of(jnp.asarray(labels[..., ::-1]), SLOTS), values[..., ::-1, :])
    np.testing.assert_array_equal(mirrored["areas"], before["areas"])
    np.testing.assert_allclose(mirrored["sums"], before["sums"], atol=1e-5)
    present = np.asarray(before["areas"])[..., None] > 0
    x0, y0, x1, y1 = np.moveaxis(np.asarray(before["boxes"]), -1, 0)
    expected = np.where(present, np.stack([1 - x1, y0, 1 - x0, y1], -1), 0)
    np.testing.assert_allclose(mirrored["boxes"], expected, atol=1e-6)
    x, y = np.moveaxis(np.asarray(before["centers"]), -1, 0)
    # Cells are counted by their left edges: the last one starts a cell before 1.
    expected = np.where(present, np.stack([1 - 1 / SHAPE[3] - x, y], -1), 0)
    np.testing.assert_allclose(mirrored["centers"], expected, atol=1e-6)
    reversed_ = measure(Segments.of(jnp.asarray(labels[:, ::-1]), SLOTS), values[:, ::-1])
    for name, array in reversed_.items():
        np.testing.assert_array_equal(array[:, :, ::-1], before[name], err_msg=name)


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(1, SLOTS)), st.integers(0, 2**32 - 1))
def test_permuted_labels_have_permuted_measures(order, seed):
    labels, values = random_labels(SHAPE, SLOTS, seed), random_values(SHAPE)
    order = np.array([0, *order], np.int32)
    before = measure(Segments.of(jnp.asarray(labels), SLOTS), values)
    after = measure(Segments.of(jnp.asarray(order[labels]), SLOTS), values)
    for name, array in after.items():
        np.testing.assert_array_equal(array[:, order], before[name], err_msg=name)


def test_packed_segments_need_row_and_rows():
    with pytest.raises(ValueError, match="both `row` and `rows`"):
        Segments.of(jnp.zeros(SHAPE, jnp.int32), SLOTS, rows=1)
    none = Segments.of(jnp.zeros(SHAPE, jnp.int32), SLOTS, row=jnp.zeros(2, jnp.int32), rows=0)
    assert none.rows == 0
