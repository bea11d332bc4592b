"""Augmentation's operations against their published definitions, in NumPy, Pillow and SciPy."""

from __future__ import annotations

import colorsys
import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from trajvit_jax.data.augment import AugmentSettings, Draw, apply
from trajvit_jax.ops.blur import blur, gaussian_taps
from trajvit_jax.ops.color import BRIGHTNESS, CONTRAST, HUE, SATURATION, grayscale, jitter
from trajvit_jax.ops.color import shift_hue as _shift_hue
from trajvit_jax.ops.crop import Box, crop_labels, crop_pixels

LEVEL = 2e-3  # of 255: float32 against float64
shift_hue, jittered = jax.jit(_shift_hue), jax.jit(jitter)
cropped = jax.jit(crop_pixels, static_argnames="size")
label_crop = jax.jit(crop_labels, static_argnames=("frame", "size"))


def box_of(top, left, height, width):
    return Box(*(jnp.int32(edge) for edge in (top, left, height, width)))


# The definitions, for frames [t, h, w, 3] of 0..255 in float64.


def resized(frames, size):
    """Pillow's bilinear resize: a triangle over the pixels of the given image, antialiased."""
    planes = np.moveaxis(np.asarray(frames, np.float32), -1, 1)
    shape = planes.shape
    return np.moveaxis(
        np.stack(
            [
                np.asarray(Image.fromarray(plane).resize((size, size), Image.Resampling.BILINEAR))
                for plane in planes.reshape(-1, *shape[2:])
            ]
        ).reshape(*shape[:2], size, size),
        1,
        -1,
    ).astype(np.float64)


def gray_of(x):
    return (x @ [0.2989, 0.587, 0.114])[..., None]


def blended(x, other, factor):
    return np.clip(factor * x + (1 - factor) * other, 0, 255)


def hue_shifted(x, turns):
    def one(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixel / 255))
        return colorsys.hsv_to_rgb((hue + turns) % 1.0, saturation, value)

    return 255 * np.apply_along_axis(one, -1, x)


CHANGES = {
    BRIGHTNESS: lambda x, factor: blended(x, 0.0, factor),
    CONTRAST: lambda x, factor: blended(x, gray_of(x).mean((1, 2, 3), keepdims=True), factor),
    SATURATION: lambda x, factor: blended(x, gray_of(x), factor),
    HUE: hue_shifted,
}


def blurred(x, sigma, taps=5):
    offsets = np.arange(taps) - taps // 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    for axis in (1, 2):
        x = scipy.ndimage.correlate1d(x, weights / weights.sum(), axis, mode="mirror")
    return x


def close(planes, frames):
    """Compares planes [3, t, h, w] with frames [t, h, w, 3]."""
    assert planes.dtype == jnp.float32
    error = np.abs(np.moveaxis(np.asarray(planes, np.float64), 0, -1) - frames).max()
    assert error < LEVEL, f"off by {error:.2g} of 255"


@pytest.fixture(scope="module")
def frames():
    """Two frames of unlike brightness, with grays, pure colours, black and white in them."""
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 255, (2, 9, 8, 3))
    x[1] *= 0.4
    x[:, 0] = x[:, 0, :, :1]
    x[:, 1, :6] = 255 * np.array(list(itertools.product((0, 1), repeat=3)))[1:7]
    x[:, 2, 0], x[:, 2, 1] = 0, 255
    x[:, 3, :, 1] = x[:, 3, :, 0]  # two channels share the highest or the lowest place
    return x.astype(np.float32).astype(np.float64)


@pytest.fixture(scope="module")
def planes(frames):
    return jnp.asarray(np.moveaxis(frames, -1, 0), jnp.float32)


@pytest.mark.parametrize(
    "box", [(0, 0, 40, 36), (5, 3, 31, 20), (8, 30, 7, 6), (12, 12, 12, 12), (39, 35, 1, 1)]
)
def test_crops_are_pillows_resize_of_what_is_in_the_box(box):
    rng = np.random.default_rng(1)
    video = rng.integers(0, 256, (2, 40, 36, 3), dtype=np.uint8)
    top, left, height, width = box
    expected = resized(video[:, top : top + height, left : left + width], 12)
    for mirror in (False, True):
        found = cropped(jnp.asarray(video), box_of(*box), size=12, mirror=jnp.bool_(mirror))
        close(found, expected[:, :, ::-1] if mirror else expected)


def test_pixels_outside_the_box_do_not_count():
    video = np.full((1, 20, 20, 3), 255, np.uint8)
    video[:, 4:15, 6:18] = 10
    found = cropped(jnp.asarray(video), box_of(4, 6, 11, 12), size=8, mirror=jnp.bool_(False))
    np.testing.assert_allclose(found, 10, atol=1e-4)


def test_frames_of_the_same_size_stay_exactly_as_they_are():
    video = np.random.default_rng(2).integers(0, 256, (1, 24, 24, 3), dtype=np.uint8)
    found = cropped(jnp.asarray(video), box_of(0, 0, 24, 24), size=24, mirror=jnp.bool_(False))
    assert np.array_equal(np.moveaxis(np.asarray(found), 0, -1), video)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([(256, 224), (256, 256), (30, 45), (17, 5)]), st.booleans())
def test_labels_are_those_under_the_centres(data, sizes, mirror):
    source, cells = sizes
    size = 7
    start = [data.draw(st.integers(0, source - 1)) for _ in range(2)]
    length = [data.draw(st.integers(1, source - edge)) for edge in start]

    def at(axis):
        for i in range(size):
            centre = start[axis] + Fraction(2 * i + 1, 2 * size) * length[axis]
            yield int(centre * Fraction(cells, source))  # positive: rounds down

    labels = np.arange(cells * cells, dtype=np.int32).reshape(1, cells, cells)
    rows, columns = list(at(0)), list(at(1))
    found = label_crop(
        jnp.asarray(labels),
        box_of(start[0], start[1], length[0], length[1]),
        frame=(source, source),
        size=size,
        mirror=jnp.bool_(mirror),
    )
    expected = labels[:, rows][:, :, columns[::-1] if mirror else columns]
    np.testing.assert_array_equal(found, expected)


def test_label_maps_too_large_for_32_bits_are_refused():
    labels = jax.ShapeDtypeStruct((1, 5000, 5000), jnp.uint16)

    def crop(labels):
        box = box_of(0, 0, 4999, 4999)
        return crop_labels(labels, box, frame=(4999, 4999), size=56, mirror=jnp.bool_(False))

    with pytest.raises(ValueError, match="5000 cells over 4999 pixels"):
        jax.eval_shape(crop, labels)


def test_gray_is_torchvisions_weighted_sum(frames, planes):
    np.testing.assert_allclose(grayscale(planes), gray_of(frames)[..., 0], atol=LEVEL)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.03, 0.1, 0.5])
def test_hue_turns_as_in_hsv(frames, planes, turns):
    close(shift_hue(planes, jnp.float32(turns)), hue_shifted(frames, turns))


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("strength", [-1, 1])
def test_each_change_is_its_definition(frames, planes, change, strength):
    factors = np.array([1.0, 1.0, 1.0, 0.0])
    factors[change] += strength * (0.1 if change == HUE else 0.4)
    others = [other for other in CHANGES if other != change]
    found = jittered(planes, jnp.array([change, *others]), jnp.asarray(factors, jnp.float32))
    close(found, CHANGES[change](frames, factors[change]))


def test_changes_come_in_the_given_order(frames, planes):
    factors = np.array([1.4, 0.7, 1.3, 0.08])
    results = []
    for order in itertools.permutations(CHANGES):
        expected = frames
        for change in order:
            expected = CHANGES[change](expected, factors[change])
        close(jittered(planes, jnp.array(order), jnp.asarray(factors, jnp.float32)), expected)
        results.append(expected)
    apart = [np.abs(a - b).max() for a, b in itertools.combinations(results, 2)]
    assert np.median(apart) > 1  # another order is another picture


@pytest.mark.parametrize("sigma", [0.1, 0.6, 2.0])
def test_blur_is_a_gaussian_with_mirrored_borders(frames, planes, sigma):
    close(blur(planes, gaussian_taps(jnp.float32(sigma), 5)), blurred(frames, sigma))


@pytest.mark.parametrize("happens", [True, False])
def test_a_video_gets_what_was_drawn_in_the_published_order(happens):
    rng = np.random.default_rng(3)
    video = rng.integers(0, 256, (2, 30, 30, 3), dtype=np.uint8)
    labels = rng.integers(0, 9, (2, 30, 30), dtype=np.uint16)
    order, factors, yes = (2, 0, 3, 1), (0.7, 1.3, 1.2, -0.06), jnp.bool_(happens)
    drawn = Draw(
        box_of(4, 2, 21, 25),
        flip=yes,
        jitter=yes,
        order=jnp.array(order),
        factors=jnp.array(factors, jnp.float32),
        grayscale=jnp.bool_(False),
        blur=yes,
        sigma=jnp.float32(0.9),
    )
    run = jax.jit(apply, static_argnums=3, static_argnames=("image_size", "grid"))
    for drawn_gray in (False, True):
        one = drawn._replace(grayscale=jnp.bool_(drawn_gray))
        found, cells = run(one, video, labels, AugmentSettings(), image_size=16, grid=4)
        expected = resized(video[:, 4:25, 2:27], 16)
        if happens:
            expected = expected[:, :, ::-1]
            for change in order:
                expected = CHANGES[change](expected, factors[change])
        if drawn_gray:
            expected = gray_of(expected).repeat(3, axis=-1)
        close(jnp.moveaxis(found, -1, 0), blurred(expected, 0.9) if happens else expected)
        rows = [4 + int((i + 0.5) * 21 / 4) for i in range(4)]
        columns = [2 + int((i + 0.5) * 25 / 4) for i in range(4)]
        expected_cells = labels[:, rows][:, :, columns[::-1] if happens else columns]
        np.testing.assert_array_equal(cells, expected_cells)
