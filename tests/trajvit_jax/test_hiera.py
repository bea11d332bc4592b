"""Hiera without PyTorch: shapes, attention in windows by the plain formula, who sees whom."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.hiera import Hiera, pool
from trajvit_jax.models.settings import HieraSettings
from trajvit_jax.ops.interpolation import bicubic_matrix
from trajvit_jax.ops.windows import attend_in_windows, merge_windows, split_windows

TINY = HieraSettings(image_size=64, width=8, depths=(1, 2, 1, 1), heads=(1, 2, 2, 4))
# transformers 5.23, HieraModel without its pooler at the configuration of hiera-small-224; with
# pooler and classifier it has 35,008,072: the paper's 35 M.
HIERA_SMALL_PARAMETERS = 34_237_536


@pytest.fixture(scope="module")
def make():
    """Random models: initial weights hardly change what goes in."""

    def build(settings=TINY, *, dtype=jnp.float32):
        rng = np.random.default_rng(0)
        graph, state = nnx.split(
            nnx.eval_shape(lambda: Hiera(settings, dtype=dtype, rngs=nnx.Rngs(0)))
        )

        def fill(leaf):
            fan_in = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 1
            return jnp.asarray(rng.normal(size=leaf.shape) * fan_in**-0.5, leaf.dtype)

        return nnx.merge(graph, jax.tree.map(fill, state))

    return build


@nnx.jit
def run(model, images):
    return model(images, train=False)


def features_of(model, images):
    return [np.asarray(feature) for feature in run(model, jnp.asarray(images))]


def random_images(height, width, n):
    rng = np.random.default_rng(1)
    return rng.normal(size=(n, height, width, 3)).astype(np.float32)


def plain_attention(query, key, value, heads, window):
    """For every query the softmax over the keys of its window, one at a time, in float64."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    n, h, w, d = key.shape
    _, y, x, _ = query.shape
    rows, columns = (h, w) if window is None else (window, window)
    out = np.zeros(query.shape)
    for image, i, j in np.ndindex(n, y, x):
        top, left = i * h // y // rows * rows, j * w // x // columns * columns
        inside = (image, slice(top, top + rows), slice(left, left + columns))
        for head in np.split(np.arange(d), heads):
            keys, values = (part[inside].reshape(-1, d)[:, head] for part in (key, value))
            weights = np.exp(keys @ query[image, i, j, head] / np.sqrt(len(head)))
            out[image, i, j, head] = weights @ values / weights.sum()
    return out


@pytest.mark.parametrize("window", [2, 4, None])
@pytest.mark.parametrize("pooled", [False, True])
def test_attention_in_windows_is_the_plain_formula(assert_golden, window, pooled):
    rng = np.random.default_rng(0)
    query, key, value = jnp.asarray(rng.normal(size=(3, 2, 8, 4, 6)), jnp.float32)
    query = pool(query) if pooled else query
    actual = attend_in_windows(query, key, value, heads=2, window=window)
    assert_golden(actual, plain_attention(query, key, value, 2, window))


@pytest.mark.parametrize(
    ("n", "rows", "columns", "height", "width"), [(2, 3, 2, 2, 3), (1, 1, 2, 3, 1)]
)
def test_windows_are_rectangles_in_reading_order(n, rows, columns, height, width):
    cells = n * rows * height * columns * width
    maps = np.arange(cells, dtype=np.float32).reshape(n, rows * height, columns * width, 1)
    windows = np.asarray(split_windows(jnp.asarray(maps), height, width))
    expected = [
        maps[i, y * height : (y + 1) * height, x * width : (x + 1) * width]
        for i, y, x in np.ndindex(n, rows, columns)
    ]
    np.testing.assert_array_equal(windows, expected)
    np.testing.assert_array_equal(merge_windows(jnp.asarray(windows), *maps.shape[1:3]), maps)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: split_windows(x, 2, 3), "2x3 cells do not tile maps of 4x4"),
        (lambda x: merge_windows(x, 8, 6), "4x4 cells do not tile maps of 8x6"),
        (lambda x: attend_in_windows(x, x, x, heads=4, window=2), "4 heads .* 6 channels"),
        (lambda x: attend_in_windows(x, x, x, heads=2, window=3), "3x3 cells do not tile"),
    ],
)
def test_windows_that_do_not_tile_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(jnp.zeros((2, 4, 4, 6)))


def test_pool_takes_maxima_of_2x2_cells():
    x = jnp.asarray([[1.0, 2, 0, -1], [4, 3, -2, -3]])[None, :, :, None]
    np.testing.assert_array_equal(pool(x)[0, :, :, 0], [[4, 0]])


@pytest.mark.parametrize(("n", "height", "width"), [(1, 64, 64), (2, 32, 96)])
def test_pyramid_halves_the_grid_and_doubles_the_channels(make, n, height, width):
    features = features_of(make(), random_images(height, width, n))
    shapes = [(n, height // s, width // s, 2 * s) for s in (4, 8, 16, 32)]
    assert [feature.shape for feature in features] == shapes
    assert [feature.shape[-1] for feature in features] == list(TINY.widths)


def test_hiera_small_has_the_known_number_of_parameters():
    model = nnx.eval_shape(lambda: Hiera(HieraSettings(), rngs=nnx.Rngs(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model))) == HIERA_SMALL_PARAMETERS


def changed_cells(model, pixel):
    """For each stage, the extent (rows, columns) of the cells that one pixel reaches."""
    images = random_images(64, 64, 1)
    moved = images.copy()
    moved[0, *pixel] += 1
    before, after = features_of(model, images), features_of(model, moved)
    changed = [np.argwhere((a != b).any((0, -1))) for a, b in zip(before, after, strict=True)]
    return [(*cells.min(0), *cells.max(0)) for cells in changed]


def test_mask_units_hide_all_else_from_their_cells(make):
    """The pixel is one that only patches of its unit (rows 32..63, columns 0..31) cover."""
    unit = [(8, 0, 15, 7), (4, 0, 7, 3), (2, 0, 3, 1)]
    # The first block of stage 3 pools within units still; stage 4 sees the whole image.
    assert changed_cells(make(), (47, 16)) == [*unit, (0, 0, 1, 1)]
    # So does a second block of stage 3.
    deeper = dataclasses.replace(TINY, depths=(1, 1, 2, 1))
    assert changed_cells(make(deeper), (47, 16)) == [*unit[:2], (0, 0, 3, 3), (0, 0, 1, 1)]


def test_bfloat16_computes_what_float32_does(make):
    small = HieraSettings(64, 8, depths=(1, 1), heads=(1, 2), unit_attention=(True, False))
    images = random_images(64, 64, 1)
    model = make(small, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {jnp.dtype("float32")}
    for half, full in zip(
        features_of(model, images), features_of(make(small), images), strict=True
    ):
        assert half.dtype == jnp.bfloat16
        error = np.linalg.norm(half.astype(np.float32) - full)
        assert 0 < error < 0.03 * np.linalg.norm(full)


def test_bicubic_matrix_by_hand():
    """Between two cells the weights of a = -0.75 are -3/32, 19/32, 19/32, -3/32."""
    np.testing.assert_array_equal(bicubic_matrix(5, 5), np.eye(5))
    np.testing.assert_allclose(
        bicubic_matrix(8, 4)[:2] * 32,
        [[16, 19, -3, 0, 0, 0, 0, 0], [0, -3, 19, 19, -3, 0, 0, 0]],
        atol=1e-5,
    )
    np.testing.assert_allclose(bicubic_matrix(3, 7).sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("size", [(48, 64), (64, 40), (0, 32)])
def test_images_that_units_do_not_tile_are_refused(make, size):
    with pytest.raises(ValueError, match=rf"{size[0]}x{size[1]} pixels.*multiples of 32"):
        make()(jnp.zeros((1, *size, 3)), train=False)


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"unit_attention=\(True,\) must have 4 entries"):
        Hiera(dataclasses.replace(TINY, unit_attention=(True,)), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="3 heads cannot share 8 channels"):
        Hiera(dataclasses.replace(TINY, heads=(3, 1, 1, 1)), rngs=nnx.Rngs(0))
