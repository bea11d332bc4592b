"""Augmentation of batches: what is drawn, from which key, and that labels follow pixels."""

from __future__ import annotations

import dataclasses
import functools

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from tokenization.resizing import resize_labels
from trajvit_jax.config import to_settings
from trajvit_jax.data.augment import AugmentSettings, augment, draw, sample_keys
from trajvit_jax.ops.color import BRIGHTNESS

DRAWS = 4000
STORED, SIZE, GRID = 64, 32, 8
ALWAYS = AugmentSettings(flip=1.0, jitter=1.0, grayscale=1.0, blur=1.0)

run = jax.jit(augment, static_argnames=("settings", "image_size", "grid"))
to_model = functools.partial(run, image_size=SIZE, grid=GRID)


def keys_of(count, *, seed=0, epoch=0):
    ids = np.random.default_rng(count).integers(0, 2**32, (count, 2), dtype=np.uint32)
    return sample_keys(seed, epoch, jnp.asarray(ids))


def drawn(settings, height, width, count=DRAWS):
    one = functools.partial(draw, settings=settings, height=height, width=width)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(keys_of(count)))


@pytest.fixture(scope="module")
def paper():
    """Many draws with the paper's settings, for wide frames."""
    return drawn(AugmentSettings(), 90, 160)


@pytest.fixture
def clips():
    """Three videos of two frames, with label maps of another size."""
    rng = np.random.default_rng(5)
    video = rng.integers(0, 256, (3, 2, STORED, STORED, 3), dtype=np.uint8)
    return video, rng.integers(0, 9, (3, 2, 56, 56), dtype=np.uint16)


def random_resized_crop(rng, height, width, scale, ratio):
    """torchvision's RandomResizedCrop.get_params, as its documentation and source describe it."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        aspect = np.exp(rng.uniform(*np.log(ratio)))
        w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w
    if width / height < min(ratio):
        h, w = round(width / min(ratio)), width
    elif width / height > max(ratio):
        h, w = height, round(height * max(ratio))
    else:
        h, w = height, width
    return (height - h) // 2, (width - w) // 2, h, w


def test_crops_are_distributed_as_torchvisions(paper):
    rng = np.random.default_rng(7)
    settings = AugmentSettings()
    boxes = [
        random_resized_crop(rng, 90, 160, settings.crop_scale, settings.crop_ratio)
        for _ in range(DRAWS)
    ]
    found, expected = np.stack(paper.box, axis=1), np.array(boxes)
    for axis, size in enumerate((90, 160)):
        assert (found[:, axis] >= 0).all()
        assert (found[:, axis] + found[:, axis + 2] <= size).all()
    for name, of in {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "right": lambda box: 160 - box[:, 1] - box[:, 3],
    }.items():
        test = scipy.stats.ks_2samp(of(found), of(expected))
        assert test.pvalue > 0.01, f"{name}: {test}"


@pytest.mark.parametrize(
    "height, width, box", [(20, 200, (0, 86, 20, 27)), (200, 20, (86, 0, 27, 20))]
)
def test_where_no_box_fits_the_crop_is_central(height, width, box):
    found = np.stack(drawn(AugmentSettings(), height, width, 20).box, axis=1)
    assert (found == box).all()


def test_a_frame_within_the_ratios_is_taken_whole_where_no_box_fits():
    settings = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.3))
    found = np.stack(drawn(settings, 100, 110, 200).box, axis=1)
    whole = (found == (0, 0, 100, 110)).all(axis=1)
    assert 0 < whole.mean() < 1 and (found[:, 2:] <= (100, 110)).all()


def test_everything_happens_as_often_as_set(paper):
    rates = {"flip": 0.5, "jitter": 0.8, "grayscale": 0.2, "blur": 0.5}
    for name, rate in rates.items():
        count = getattr(paper, name).sum()
        test = scipy.stats.binomtest(int(count), DRAWS, rate)
        assert test.pvalue > 0.01, f"{name}: {count} of {DRAWS}"
    pairs = np.stack([getattr(paper, name) for name in rates])
    assert np.abs(np.corrcoef(pairs) - np.eye(len(rates))).max() < 4 / np.sqrt(DRAWS)


def test_factors_sigmas_and_orders_are_uniform(paper):
    ranges = [(0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)]
    columns = [*paper.factors.T, paper.sigma]
    for values, (low, high) in zip(columns, [*ranges, (0.1, 2.0)], strict=True):
        test = scipy.stats.kstest(values, "uniform", (low, high - low))
        assert test.pvalue > 0.01, f"{low}..{high}: {test}"
    counts = np.unique(paper.order, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert scipy.stats.chisquare(counts).pvalue > 0.01


def test_one_setting_leaves_the_other_draws_as_they_were(paper):
    other = drawn(AugmentSettings(flip=1.0, jitter=0.1, brightness=2.0), 90, 160)
    assert other.flip.all()
    strong = other.factors[:, BRIGHTNESS]
    assert strong.min() >= 0 and strong.max() > 2.9  # a strong factor stops at zero
    np.testing.assert_array_equal(other.factors[:, 1:], paper.factors[:, 1:])
    for name in ("box", "order", "grayscale", "blur", "sigma"):
        np.testing.assert_array_equal(getattr(other, name), getattr(paper, name), name)


def test_keys_differ_by_seed_epoch_and_each_word_of_the_id():
    ids = jnp.array([[1, 2], [2, 1], [1, 3], [0, 2]], jnp.uint32)
    every = jnp.stack([sample_keys(s, e, ids) for s, e in [(0, 0), (0, 1), (1, 0)]])
    assert len(np.unique(jax.random.key_data(every).reshape(-1, 2), axis=0)) == 12


def test_keys_depend_on_nothing_else():
    ids = jnp.array([[5, 6], [7, 8], [9, 10]], jnp.uint32)
    expected = jax.random.key_data(sample_keys(3, 4, ids))
    moved = sample_keys(3, jnp.array([1, 4]), ids[::-1][:2])  # another batch, place and epochs
    np.testing.assert_array_equal(jax.random.key_data(moved)[1], expected[1])
    with jax.default_prng_impl("rbg"):
        traced = jax.jit(sample_keys)(3, 4, ids)
    np.testing.assert_array_equal(jax.random.key_data(traced), expected)


def test_labels_follow_pixels():
    """Blocks whose colour tells their label, in frames and label maps of different sizes."""
    block = 1 + np.arange(16).reshape(4, 4)
    colours = np.random.default_rng(0).permutation(17)[:, None] * [15, 7, 11]
    pixels = colours[np.kron(block, np.ones((16, 16), int))]
    labels = np.kron(block, np.ones((8, 8), int))  # half as many cells as pixels
    count, grid = 24, 2 * GRID
    found, cells = run(
        np.broadcast_to(pixels, (count, 1, STORED, STORED, 3)).astype(np.uint8),
        np.broadcast_to(labels, (count, 1, 32, 32)).astype(np.uint16),
        keys_of(count),
        AugmentSettings(jitter=0.0, grayscale=0.0, blur=0.0),
        image_size=4 * grid,
        grid=grid,
    )
    patches = np.asarray(found).reshape(count, grid, 4, grid, 4, 3)
    inside = np.ptp(patches, axis=(2, 4)).max(-1) < 0.01  # the cell lies within one block
    assert inside.mean() > 0.4
    decoded = np.abs(patches[:, :, 0, :, 0, None] - colours).sum(-1).argmin(-1)
    np.testing.assert_array_equal(np.asarray(cells)[:, 0][inside], decoded[inside])
    assert len(np.unique(cells, axis=0)) > 0.75 * count  # the crops differ


def test_all_frames_of_a_video_are_changed_alike(clips):
    video, labels = (np.repeat(x[:, :1], 2, axis=1) for x in clips)
    found, cells = to_model(video, labels, keys_of(3), AugmentSettings())
    assert found.dtype == jnp.float32 and cells.dtype == jnp.int32
    assert float(found.min()) >= 0 and float(found.max()) <= 255 + 1e-3
    np.testing.assert_allclose(found[:, 1], found[:, 0], atol=1e-3)
    np.testing.assert_array_equal(cells[:, 1], cells[:, 0])
    assert not np.allclose(found[0], found[1])


def test_a_video_does_not_depend_on_its_batch(clips):
    video, labels = clips
    keys = keys_of(3)
    together, cells = to_model(video, labels, keys, AugmentSettings())
    for i in range(3):
        others = [(i + 1) % 3, i, (i + 1) % 3]
        again, own = to_model(
            video[others], labels[others], keys[jnp.array(others)], AugmentSettings()
        )
        np.testing.assert_array_equal(own[1], cells[i])
        np.testing.assert_allclose(again[1], together[i], atol=1e-3)


def test_eight_devices_draw_what_one_draws():
    if jax.device_count() < 8:
        pytest.skip("needs XLA_FLAGS=--xla_force_host_platform_device_count=8")
    rng = np.random.default_rng(1)
    video = rng.integers(0, 256, (16, 2, STORED, STORED, 3), dtype=np.uint8)
    labels = rng.integers(0, 9, (16, 2, STORED, STORED), dtype=np.uint16)
    ids = rng.integers(0, 2**32, (16, 2), dtype=np.uint32)

    def step(video, labels, ids):
        keys = sample_keys(1, 2, ids)
        return augment(video, labels, keys, AugmentSettings(), image_size=SIZE, grid=GRID)

    mesh = jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,))
    split = NamedSharding(mesh, P("data"))
    arrays = [jax.device_put(x, split) for x in (video, labels, ids)]
    program = jax.jit(step, out_shardings=split).lower(*arrays).compile()
    pixels, cells = program(*arrays)
    one_pixels, one_cells = jax.jit(step)(video, labels, ids)
    np.testing.assert_array_equal(cells, one_cells)
    np.testing.assert_allclose(pixels, one_pixels, atol=1e-3)
    text = program.as_text()
    assert not [word for word in ("all-gather", "all-reduce", "all-to-all") if word in text]


def test_keys_are_data_of_one_compiled_program(clips):
    results = [to_model(*clips, keys_of(3), AugmentSettings())]
    compiled = run._cache_size()
    results += [to_model(*clips, keys_of(3, epoch=epoch), AugmentSettings()) for epoch in (1, 2)]
    assert run._cache_size() == compiled
    assert len({float(pixels.mean()) for pixels, _ in results}) == 3


def test_images_are_videos_of_one_frame(clips):
    video, labels = (x[:, :1] for x in clips)
    found, cells = to_model(video, labels, keys_of(3), ALWAYS)
    assert found.shape == (3, 1, SIZE, SIZE, 3) and cells.shape == (3, 1, GRID, GRID)
    np.testing.assert_allclose(found[..., 0], found[..., 2], atol=1e-3)  # gray


def test_off_is_nearly_the_resize_of_evaluation(clips):
    """Area and triangle filters agree where pictures are smooth; labels agree always."""
    _, labels = clips
    rng = np.random.default_rng(0)
    coarse = rng.uniform(0, 255, (3 * 2, 4, 4, 3)).astype(np.float32)
    smooth = [cv2.resize(x, (STORED, STORED), interpolation=cv2.INTER_CUBIC) for x in coarse]
    video = np.clip(smooth, 0, 255).astype(np.uint8).reshape(3, 2, STORED, STORED, 3)
    found, cells = to_model(video, labels, keys_of(3), AugmentSettings.none())
    np.testing.assert_array_equal(cells, resize_labels(labels, GRID, GRID))
    frames = video.reshape(-1, STORED, STORED, 3)
    area = [cv2.resize(x, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for x in frames]
    error = np.asarray(found).reshape(-1, SIZE, SIZE, 3) - np.array(area)
    assert np.abs(error).max() < 4 and np.abs(error).mean() < 0.5 and abs(error.mean()) < 0.2


def test_off_at_the_models_size_is_the_identity(clips):
    video, labels = clips[0], np.ones((3, 2, STORED, STORED), np.int32)
    settings = AugmentSettings.none()
    found, cells = run(video, labels, keys_of(3), settings, image_size=STORED, grid=STORED)
    np.testing.assert_array_equal(found, video)
    np.testing.assert_array_equal(cells, labels)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"flip": 1.5}, "flip must be a probability within 0..1, got 1.5"),
        ({"jitter": float("nan")}, "jitter must be a probability"),
        ({"blur": -0.5}, "blur must be a probability"),
        ({"contrast": -0.1}, "contrast must be a number >= 0"),
        ({"hue": 0.6}, "hue must be within 0..0.5 turns, got 0.6"),
        ({"crop_scale": (0.2, 1.2)}, r"crop_scale must be \(lowest, highest\).*at most 1"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, r"crop_ratio must be .* got \(2.0, 1.0\)"),
        ({"blur_sigma": (0.0, 2.0)}, "blur_sigma"),
        ({"blur_taps": 4}, "blur_taps must be an odd number"),
    ],
)
def test_settings_outside_their_range_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(AugmentSettings(), **changes)


def test_settings_are_read_from_a_config():
    found = to_settings(AugmentSettings, {"jitter": 0.6, "crop_scale": [0.5, 1.0]})
    assert found == AugmentSettings(jitter=0.6, crop_scale=(0.5, 1.0))


@pytest.mark.usefixtures("annotations_unchecked")
def test_inputs_that_do_not_belong_together_are_named(clips):
    video, labels = clips
    check = functools.partial(augment, settings=AugmentSettings(), image_size=SIZE, grid=GRID)
    with pytest.raises(ValueError, match="video must be"):
        check(video[..., :2], labels, keys_of(3))
    with pytest.raises(ValueError, match=r"labels must be .* labels \[3, 1, 56, 56\]"):
        check(video, labels[:, :1], keys_of(3))
    with pytest.raises(ValueError, match=r"one key, .* keys \[2\]"):
        check(video, labels, keys_of(2))
    with pytest.raises(ValueError, match="too small to blur with 5 taps"):
        check(video, labels, keys_of(3), image_size=2)
