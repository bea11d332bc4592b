"""Automatic masks against the sam2 package's image predictor and mask generator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.plain_boxes import iou
from tokenization.learned import DeviceSettings, PointGridSettings, Sam2Settings
from tokenization.protocols import Segmenter

pytestmark = pytest.mark.torch

SETTINGS = PointGridSettings(side=4, points=6, min_quality=0.0, min_stability=0.0)
RUNNING = DeviceSettings(device="cpu", precision="float32")
SIZE = (96, 128)


@pytest.fixture(scope="module")
def point_grid(torch, transformers):
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    from tokenization.segmenters import point_grid

    yield point_grid
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(point_grid, respond):
    from tokenization.devices import Device

    return respond(point_grid.build_model(Sam2Settings("tiny", 128), Device(RUNNING), None), 0)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 12, 16, 3))
    return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)


@pytest.fixture
def segmenter(point_grid, model):
    from tokenization.devices import Device

    return point_grid.PointGrid(model, SETTINGS, Device(RUNNING), image_batch=2)


def test_logits_equal_those_of_the_image_predictor(point_grid, segmenter, model, torch, frames):
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor = SAM2ImagePredictor(model)
    features = segmenter._encode(frames)
    # Its own way of shrinking frames is torchvision's: it is given our features.
    predictor._features = {
        "image_embed": features[-1][1:2],
        "high_res_feats": [level[1:2] for level in features[:-1]],
    }
    predictor._is_image_set, predictor._orig_hw = True, [SIZE]
    points = torch.from_numpy(point_grid.grid(SETTINGS.side) * 128)
    ones = torch.ones(len(points), 1, dtype=torch.int32)
    with torch.inference_mode():
        masks, quality, _ = predictor._predict(points[:, None], ones, return_logits=True)
        logits, ours = segmenter.decode([level[1:2] for level in features], points, SIZE)
    scale = max(1.0, float(masks.abs().max()))
    torch.testing.assert_close(logits, masks.flatten(0, 1), rtol=0, atol=1e-5 * scale)
    torch.testing.assert_close(ours, quality.flatten(), rtol=0, atol=1e-5)
    # Points matter.
    assert float(masks.std(0).max()) > 30 * 1e-5 * scale


def test_the_grid_is_that_of_the_mask_generator(point_grid):
    from sam2.utils.amg import build_point_grid

    np.testing.assert_allclose(point_grid.grid(5), build_point_grid(5), atol=1e-6)


def test_stability_and_boxes_are_those_of_the_mask_generator(point_grid, segmenter, torch):
    from sam2.utils.amg import batched_mask_to_box, calculate_stability_score

    generator = torch.Generator().manual_seed(0)
    logits = (
        3 * torch.randn(20, 7, 9, generator=generator) + torch.linspace(-9, 9, 20)[:, None, None]
    )
    quality = torch.linspace(0.5, 1, 20)
    segmenter._settings = dataclasses.replace(SETTINGS, min_quality=0.6, min_stability=0.4)
    stability = calculate_stability_score(logits, 0.0, SETTINGS.stability_offset)
    kept = (quality > 0.6) & (stability >= 0.4)
    masks, found = segmenter._good(logits, quality)
    assert 3 < kept.sum() < 17
    torch.testing.assert_close(found, quality[kept])
    assert torch.equal(masks, logits[kept] > 0)
    np.testing.assert_array_equal(
        point_grid.boxes_of(logits > 0).numpy(), batched_mask_to_box(logits > 0).numpy()
    )


def test_segments(segmenter, frames):
    assert isinstance(segmenter, Segmenter)
    # Random masks are alike: all are kept.
    segmenter._settings = dataclasses.replace(SETTINGS, max_overlap=1.0)
    segments = segmenter.segment(frames)
    assert segments.shape == frames.shape[:3]
    assert segments.max((1, 2)).min() >= 2
    for labels in segments:
        np.testing.assert_array_equal(np.setdiff1d(labels, [0]), 1 + np.arange(labels.max()))


def test_a_part_that_runs_out_of_memory_is_not_counted_twice(
    segmenter, frames, point_grid, torch, monkeypatch
):
    segmenter._settings = dataclasses.replace(SETTINGS, max_overlap=1.0)
    expected, boxes_of, failed = segmenter.segment(frames), point_grid.boxes_of, []

    def fails_once(masks):
        if not failed:
            failed.append(len(masks))
            raise torch.OutOfMemoryError
        return boxes_of(masks)

    monkeypatch.setattr(point_grid, "boxes_of", fails_once)
    np.testing.assert_array_equal(segmenter.segment(frames), expected)
    assert failed


@settings(deadline=None)
@given(arrays(bool, st.tuples(st.integers(0, 6), st.just(5), st.just(7))))
def test_paint(point_grid, torch, masks):
    device = torch.device("cpu")
    found = point_grid.paint(list(torch.from_numpy(masks)), masks.shape[1:], device)
    np.testing.assert_array_equal(found, plain_paint(masks))


def plain_paint(masks: np.ndarray) -> np.ndarray:
    """Mask by mask; later ones lie over earlier ones."""
    labels = np.zeros(masks.shape[1:], np.int32)
    number = 0
    for index, mask in enumerate(masks):
        visible = mask & ~masks[index + 1 :].any(0)
        number += bool(visible.any())
        labels[visible] = number
    return labels


def plain_segments(segmenter, frame: np.ndarray, chosen: PointGridSettings) -> np.ndarray:
    """All masks at once, those of the best quality first, without what overlaps a better one."""
    import torch

    from tokenization.segmenters import point_grid

    with torch.inference_mode():
        levels = segmenter._encode(frame[None])
        points = torch.from_numpy(point_grid.grid(chosen.side) * 128)
        logits, quality = (each.numpy() for each in segmenter.decode(levels, points, SIZE))
    inner = (logits > chosen.stability_offset).sum((1, 2))
    outer = (logits > -chosen.stability_offset).sum((1, 2))
    good = (quality > chosen.min_quality) & (inner > 0) & (inner >= chosen.min_stability * outer)
    masks, quality = logits[good] > 0, quality[good]
    corners = np.zeros((len(masks), 4))
    for mask, corner in zip(masks, corners, strict=True):
        y, x = np.nonzero(mask)
        if x.size:
            corner[:] = x.min(), y.min(), x.max(), y.max()
    kept: list[int] = []
    for index in np.argsort(-quality, kind="stable"):
        if all(iou(corners[index], corners[other]) <= chosen.max_overlap for other in kept):
            kept.append(index)
    largest = sorted((masks[index] for index in kept), key=lambda mask: -mask.sum())
    return plain_paint(np.array([mask for mask in largest if mask.any()][: chosen.max_segments]))


def discs(levels, points, size):
    """Three discs around each point, as masks that differ more than those of random weights."""
    import torch

    del levels
    y, x = torch.meshgrid(*(torch.arange(side) + 0.5 for side in size), indexing="ij")
    centres = points / 128 * torch.tensor([size[1], size[0]])
    away = torch.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None])
    radii = torch.tensor([9.0, 14.0, 30.0])[:, None, None]
    quality = (points.sum(1)[:, None] * torch.tensor([0.31, 0.77, 0.53])).sin().abs()
    return (radii - away[:, None]).flatten(0, 1), quality.flatten()


@pytest.mark.parametrize(
    ("by", "values"),
    [
        ("model", {"max_overlap": 1.0}),
        ("discs", {"max_overlap": 1.0}),
        ("discs", {"max_overlap": 0.3}),
        ("discs", {"max_segments": 5}),
        ("discs", {"min_stability": 0.8}),
    ],
)
def test_segments_equal_the_plain_way(segmenter, frames, monkeypatch, by, values):
    """Which leaves all masks in one array, and looks at each of them."""
    chosen = segmenter._settings = dataclasses.replace(SETTINGS, **values)
    if by == "discs":
        monkeypatch.setattr(segmenter, "decode", discs)
        frames = frames[:1]
    found = segmenter.segment(frames)
    expected = np.stack([plain_segments(segmenter, frame, chosen) for frame in frames])
    assert expected.any()
    assert by == "model" or 5 <= expected.max() < 48
    np.testing.assert_array_equal(found, expected)


def test_only_masks_that_are_kept_are_painted(segmenter, frames, point_grid, monkeypatch):
    """Three a point are not: they take 450 MB a frame at 512 px with a grid of 32x32."""
    painted = []
    paint = point_grid.paint

    def count(masks, *rest):
        painted.append(len(masks))
        return paint(masks, *rest)

    monkeypatch.setattr(point_grid, "paint", count)
    segmenter._settings = dataclasses.replace(SETTINGS, max_overlap=1.0, max_segments=4)
    segmenter.segment(frames)
    assert painted == [4] * len(frames)


def test_no_good_mask(point_grid, model, frames):
    from tokenization.devices import Device

    strict = dataclasses.replace(SETTINGS, min_quality=1.0)
    segmenter = point_grid.PointGrid(model, strict, Device(RUNNING), image_batch=2)
    assert not segmenter.segment(frames[:1]).any()
