"""Mask pooling: fast = reference = eq. (1) by padded masks, in value and gradient."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.ops import mask_pooling
from trajvit_jax.ops.mask_pooling import (
    Projection,
    feature_map,
    pool_corners,
    pool_stages,
    project_stage,
)
from trajvit_jax.ops.segments import Segments

WIDTH, CHANNELS = 6, (3, 4, 5)
GRIDS = ((8, 6), (4, 3), (1, 2))


def projection(rng, channels=CHANNELS, *, dtype=np.float32):
    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape).astype(dtype))

    return Projection(
        tuple(normal(c, WIDTH) for c in channels),
        tuple(normal(WIDTH) for _ in channels),
        normal(WIDTH),
        normal(WIDTH),
    )


def stage_maps(rng, videos, frames, grids, *, dtype=np.float32):
    return [
        jnp.asarray(rng.normal(size=(videos, frames, *grid, c)).astype(dtype))
        for grid, c in zip(grids, CHANNELS, strict=False)
    ]


@functools.partial(jax.jit, static_argnames="impl")
def pooled_and_gradients(stages, projection, segments, probe, *, impl):
    def probed(stages, projection):
        pooled = pool_stages(stages, projection, segments, impl=impl)
        return (pooled * probe).sum(), pooled

    (_, pooled), gradients = jax.value_and_grad(probed, argnums=(0, 1), has_aux=True)(
        stages, projection
    )
    return pooled, gradients


def both_ways(stages, projection, segments):
    """Values and gradients of the fast and of the reference computation."""
    shape = (segments.rows, segments.slots, segments.frames, WIDTH)
    probe = np.random.default_rng(5).normal(size=shape).astype(stages[0].dtype)
    run = functools.partial(pooled_and_gradients, stages, projection, segments, probe)
    return run(impl="fast"), run(impl="reference")


def draw(labels):
    """A function of (rng, shape) that draws labels below the given one."""
    return lambda rng, shape: rng.integers(0, labels, shape)


def constant(label):
    return lambda rng, shape: np.full(shape, label)


@pytest.mark.parametrize(
    ("make", "shape", "slots", "grids"),
    [
        pytest.param(draw(6), (2, 4, 8, 6), 6, GRIDS, id="random"),
        pytest.param(draw(3), (2, 4, 8, 6), 6, GRIDS, id="empty trajectories"),
        pytest.param(constant(2), (2, 4, 8, 6), 6, GRIDS, id="one covers all"),
        pytest.param(constant(0), (2, 4, 8, 6), 6, GRIDS, id="none"),
        pytest.param(draw(6), (2, 1, 8, 6), 6, [(8, 6), (1, 2)], id="1 frame"),
        pytest.param(draw(40), (2, 16, 8, 6), 40, [(8, 6), (4, 3)], id="16 frames"),
        pytest.param(draw(9), (1, 64, 8, 6), 9, [(8, 6), (2, 2)], id="64 frames"),
        pytest.param(draw(301), (1, 2, 20, 20), 301, [(20, 20), (5, 5)], id="300 trajectories"),
        pytest.param(draw(9), (2, 2, 11, 9), 9, [(4, 3), (2, 2)], id="uneven grids"),
    ],
)
def test_fast_equals_reference_in_value_and_gradient(assert_close, make, shape, slots, grids):
    rng = np.random.default_rng(0)
    segments = Segments.of(jnp.asarray(make(rng, shape), jnp.int32), slots)
    weights = projection(rng, CHANNELS[: len(grids)])
    fast, reference = both_ways(stage_maps(rng, *shape[:2], grids), weights, segments)
    assert_close(fast, reference)
    absent = np.asarray(segments.areas()) == 0
    assert absent.any() and not np.asarray(fast[0])[absent].any()
    assert fast[0].dtype == jnp.float32


def packed_segments(labels, slots, rows):
    """Label maps of videos with `slots` slots each, as if equally many shared a row."""
    b = len(labels)
    each = b // rows
    first = jnp.arange(b, dtype=jnp.int32) % each * slots
    labels = jnp.where(labels > 0, labels + first[:, None, None, None], 0)
    row = jnp.arange(b, dtype=jnp.int32) // each
    return Segments.of(labels, each * slots, row=row, rows=rows, first=first, span=slots)


def test_fast_equals_reference_in_packed_rows(assert_close):
    """Seven slots a video, 28 in a row: more, fewer and as many as cells."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, (4, 2, 12, 14))
    segments = packed_segments(jnp.asarray(labels), 7, rows=1)
    stages, weights = stage_maps(rng, 4, 2, ((12, 14), (6, 7), (1, 7))), projection(rng)
    fast, reference = both_ways(stages, weights, segments)
    assert_close(fast, reference)
    alone, _ = both_ways(stages, weights, Segments.of(jnp.asarray(labels), 7))
    assert_close(fast[0][0], np.concatenate(alone[0]))


@pytest.mark.parametrize(
    ("grid", "grids", "packed"),
    [
        ((8, 6), GRIDS, False),
        ((11, 9), ((4, 3), (2, 2)), False),
        ((12, 14), ((12, 14), (1, 7)), True),
    ],
    ids=["random", "uneven grids", "packed"],
)
def test_sums_in_one_order_give_the_same(assert_close, grid, grids, packed):
    """Also where one trajectory has every cell, as many addends as a sum can have."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, (4, 2, *grid))
    labels[1], labels[2, 0] = 5, 0
    labels = jnp.asarray(labels, jnp.int32)
    any_order = packed_segments(labels, 7, rows=1) if packed else Segments.of(labels, 7)
    stages, weights = stage_maps(rng, 4, 2, grids), projection(rng, CHANNELS[: len(grids)])
    probe = rng.normal(size=(any_order.rows, any_order.slots, 2, WIDTH)).astype(np.float32)
    run = functools.partial(pooled_and_gradients, stages, weights)
    in_order = any_order.replace(ordered=True)
    assert_close(run(in_order, probe, impl="fast"), run(any_order, probe, impl="reference"))


def test_a_row_may_hold_videos_out_of_order(assert_close):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (3, 2, 8, 6))
    labels[2] = np.where(labels[2] > 0, labels[2] + 4, 0)
    where = {"row": jnp.asarray([1, 0, 1]), "rows": 2, "first": jnp.asarray([0, 0, 4])}
    stages, weights = stage_maps(rng, 3, 2, GRIDS), projection(rng)
    for span in (5, None):
        segments = Segments.of(jnp.asarray(labels), 9, **where, span=span)
        assert_close(*both_ways(stages, weights, segments))


def test_packed_rows_cost_what_rows_of_one_video_do():
    grids, channels, slots, b, t, width = (16, 8, 4), (8, 16, 32), 40, 8, 2, 64
    stages = [
        jax.ShapeDtypeStruct((b, t, g, g, c), jnp.float32)
        for g, c in zip(grids, channels, strict=True)
    ]
    vector = jax.ShapeDtypeStruct((width,), jnp.float32)
    kernels = tuple(jax.ShapeDtypeStruct((c, width), jnp.float32) for c in channels)
    weights = Projection(kernels, (vector,) * 3, vector, vector)
    labels = jax.ShapeDtypeStruct((b, t, 16, 16), jnp.int32)

    def cost(segments_of):
        def pool(stages, weights, labels):
            return pool_stages(stages, weights, segments_of(labels))

        compiled = jax.jit(pool).lower(stages, weights, labels).compile()
        return compiled.cost_analysis()["flops"], compiled.memory_analysis().temp_size_in_bytes

    alone = cost(lambda labels: Segments.of(labels, slots))
    for rows in (4, 1):
        packed = cost(lambda labels, rows=rows: packed_segments(labels, slots, rows))
        ratios = np.divide(packed, alone)
        assert (ratios < (1.5, 2)).all(), f"{rows} rows: {ratios} times the FLOPs and the memory"


def test_fast_equals_reference_where_normalization_nearly_cancels(assert_close):
    """Projected features whose channels differ by a ten-thousandth, or not at all."""
    with jax.enable_x64(True):
        rng = np.random.default_rng(0)
        weights = projection(rng, dtype=np.float64)
        alike = [10 + 1e-3 * kernel for kernel in weights.kernels]
        equal = np.full((CHANNELS[1], WIDTH), 3.0)
        weights = weights.replace(
            kernels=(alike[0], jnp.asarray(equal), alike[2]),
            biases=(weights.biases[0], jnp.full(WIDTH, 2.0), weights.biases[2] * 1e-6),
        )
        segments = Segments.of(jnp.asarray(rng.integers(0, 6, (2, 3, 8, 6)), jnp.int32), 6)
        stages = stage_maps(rng, 2, 3, GRIDS, dtype=np.float64)
        # The third stage is nearly the same in all cells and channels.
        stages[2] = 1 + 1e-6 * stages[2]
        fast, reference = both_ways(stages, weights, segments)
        assert fast[0].dtype == jnp.float64
        assert_close(fast, reference)


def test_a_stage_is_pooled_alike_before_and_after_its_projection(assert_close):
    """Where cells outnumber slots, sums come first: unused slots turn that round."""
    rng = np.random.default_rng(0)
    labels = jnp.asarray(rng.integers(0, 4, (2, 3, 8, 6)), jnp.int32)
    stages, weights = stage_maps(rng, 2, 3, GRIDS), projection(rng)
    few, many = (
        jax.jit(pool_stages)(stages, weights, Segments.of(labels, slots)) for slots in (4, 60)
    )
    assert_close(many[:, :4], few)
    assert not np.asarray(many[:, 4:]).any()


@pytest.mark.parametrize("impl", ["fast", "reference"])
def test_pooling_by_labels_equals_pooling_by_padded_masks(assert_close, impl):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 9, (4, 8, 6)).astype(np.uint16)
    labels[2] = 0
    trajectories = Trajectories(
        labels, np.zeros(4, np.float32), np.arange(4) == 0, VideoInfo("v", 6, 8, 1.0, 4.0)
    )
    stages, weights = stage_maps(rng, 1, 4, GRIDS), projection(rng)
    masks = trajectories.padded_masks(12)
    features = np.asarray(feature_map(stages, weights, (8, 6))[0], np.float64)
    sums = np.einsum("nthw,thwd->ntd", masks, features)
    expected = sums / (masks.sum((2, 3))[..., None] + 1e-6)
    segments = Segments.of(jnp.asarray(labels[None]), 13)
    pooled = jax.jit(functools.partial(pool_stages, impl=impl))(stages, weights, segments)
    assert_close(pooled[0, 1:], expected)


def test_stages_are_projected_and_normalized_as_the_formula_reads(assert_close):
    rng = np.random.default_rng(0)
    weights, x = projection(rng), rng.normal(size=(5, CHANNELS[1]))
    y = x @ np.asarray(weights.kernels[1]) + np.asarray(weights.biases[1])
    y = (y - y.mean(-1, keepdims=True)) / np.sqrt(y.var(-1, keepdims=True) + weights.eps)
    expected = y * np.asarray(weights.scale) + np.asarray(weights.bias)
    assert_close(project_stage(jnp.asarray(x, jnp.float32), weights, 1), expected)


@pytest.mark.parametrize("impl", ["fast", "reference"])
def test_bfloat16_features_are_pooled_in_float32(impl):
    rng = np.random.default_rng(0)
    labels = jnp.asarray(rng.integers(0, 6, (2, 3, 8, 6)), jnp.int32)
    stages, weights = stage_maps(rng, 2, 3, GRIDS), projection(rng)
    narrow = [stage.astype(jnp.bfloat16) for stage in stages]
    pool = jax.jit(functools.partial(pool_stages, impl=impl))
    segments = Segments.of(labels, 6)
    exact, pooled = pool(stages, weights, segments), pool(narrow, weights, segments)
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled, exact, atol=0.05)


@functools.partial(jax.jit, static_argnames=("slots", "impl"))
def pool_labels(stages, weights, labels, *, slots, impl="fast"):
    return pool_stages(stages, weights, Segments.of(labels, slots), impl=impl)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**32 - 1), st.permutations(range(1, 6)))
def test_pooling_follows_permuted_ids_flips_and_reversed_time(seed, order):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 6, (2, 3, 8, 6)).astype(np.int32)
    stages, weights = stage_maps(rng, 2, 3, GRIDS), projection(np.random.default_rng(0))
    before = pool_labels(stages, weights, labels, slots=6)

    order = np.array([0, *order], np.int32)
    after = pool_labels(stages, weights, order[labels], slots=6)
    np.testing.assert_allclose(after[:, order], before, atol=1e-5)

    after = pool_labels([x[:, ::-1] for x in stages], weights, labels[:, ::-1], slots=6)
    np.testing.assert_allclose(after[:, :, ::-1], before, atol=1e-5)

    # The backbone's strided convolutions do not mirror; what pooling is given does.
    mirrored = [x[:, :, :, ::-1] for x in stages]
    after = pool_labels(mirrored, weights, labels[..., ::-1], slots=6)
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3])
def test_corners_equal_points_of_the_masked_features(size):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, (1, 2, 6, 5)).astype(np.int32)
    labels[labels == 3] = 0
    features = rng.normal(size=(1, 2, 6, 5, 3)).astype(np.float32)
    segments = Segments.of(jnp.asarray(labels), 4)
    points = jax.jit(pool_corners, static_argnums=2)(jnp.asarray(features), segments, size)
    assert points.shape == (1, 4, 2, size**2, 3)
    for slot, frame, channel in np.ndindex(4, 2, 3):
        mask = labels[0, frame] == slot
        expected = np.zeros(size**2)
        if slot and mask.any():
            rows, columns = np.nonzero(mask)
            y, x = np.meshgrid(
                np.linspace(rows.min(), rows.max(), size),
                np.linspace(columns.min(), columns.max(), size),
                indexing="ij",
            )
            masked = features[0, frame, ..., channel] * mask
            expected = map_coordinates(masked, [y.ravel(), x.ravel()], order=1)
        np.testing.assert_allclose(points[0, slot, frame, :, channel], expected, atol=1e-5)


@pytest.mark.usefixtures("annotations_unchecked")
def test_what_pooling_cannot_do_is_refused():
    rng = np.random.default_rng(0)
    labels = jnp.zeros((2, 3, 8, 6), jnp.int32)
    packed = Segments.of(labels, 4, row=jnp.zeros(2, jnp.int32), rows=1)
    with pytest.raises(ValueError, match="pool packed rows by mean"):
        pool_corners(jnp.zeros((2, 3, 8, 6, 2)), packed, 2)
    stages, weights = stage_maps(rng, 2, 3, GRIDS), projection(rng)
    with pytest.raises(ValueError, match="impl must be 'fast' or 'reference', got 'fats'"):
        pool_stages(stages, weights, packed, impl="fats")


@pytest.mark.parametrize(
    ("cells", "channels", "alone", "packed"),
    [
        (56**2, 64, False, False),
        (28**2, 128, False, False),
        (14**2, 256, False, False),
        (7**2, 512, True, True),
    ],
)
def test_a_stage_is_projected_where_that_takes_fewer_products(cells, channels, alone, packed):
    """ResNet-18's stages at width 1024: 151 slots a video, and 8 videos of up to 1,023 in 1,552."""
    few = functools.partial(mask_pooling.cells_are_few, cells, channels, 1024)
    assert few(span=151) is alone
    assert few(span=1024, own=1552 / 8) is packed
