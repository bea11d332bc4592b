"""DirectSAM's boundary map against transformers' own forward, and the segments made of it."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest

from tokenization.learned import DeviceSettings, DirectSamSettings
from tokenization.protocols import Segmenter

pytestmark = pytest.mark.torch

SETTINGS = DirectSamSettings(size="b0", resolution=256)
RUNNING = DeviceSettings(device="cpu", precision="float32")


@pytest.fixture(scope="module")
def directsam(torch, transformers):
    from tokenization.segmenters import directsam

    return directsam


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3))
    return coarse.repeat(8, 1).repeat(8, 2).astype(np.uint8)


@pytest.fixture(scope="module")
def model(directsam, randomize, torch, transformers, frames):
    """Random weights by which 4 pixels in 10 are interiors."""
    from tokenization.devices import Device

    model = randomize(directsam.build_model(SETTINGS, Device(RUNNING), None))
    logits = np.quantile(logits_of(torch, transformers, model, frames), 0.4)
    bias = model.decode_head.classifier.bias
    bias.data += np.log(SETTINGS.threshold / (1 - SETTINGS.threshold)) - logits
    return model


def logits_of(torch, transformers, model, frames: np.ndarray) -> np.ndarray:
    """By transformers' own processor and model, frame by frame."""
    processor = transformers.SegformerImageProcessor(do_resize=False)
    with torch.no_grad():
        return np.concatenate(
            [
                torch.nn.functional.interpolate(
                    model(**processor(images=frame, return_tensors="pt")).logits,
                    frame.shape[:2],
                    mode="bilinear",
                )[:, 0].numpy()
                for frame in frames
            ]
        )


@pytest.fixture
def segmenter(directsam, model):
    from tokenization.devices import Device

    return directsam.DirectSam(model, SETTINGS, Device(RUNNING), image_batch=2)


def test_a_compiled_model_gives_the_same_segments(
    directsam, randomize, torch, transformers, frames
):
    """One layer of one stage: compiling all of them takes minutes."""
    from tokenization.devices import Device

    config = transformers.SegformerConfig(
        num_labels=1,
        num_encoder_blocks=1,
        depths=[1],
        hidden_sizes=[16],
        decoder_hidden_size=32,
        sr_ratios=[4],
        patch_sizes=[7],
        strides=[4],
        num_attention_heads=[2],
        mlp_ratios=[2],
    )
    model = randomize(transformers.SegformerForSemanticSegmentation(config))
    settings = dataclasses.replace(SETTINGS, resolution=64)
    logits = logits_of(torch, transformers, model, frames[:1, :64, :64])
    model.decode_head.classifier.bias.data += np.log(0.25) - np.median(logits)
    plain = directsam.DirectSam(model, settings, Device(RUNNING), image_batch=1)
    device = Device(dataclasses.replace(RUNNING, compiled=True))
    twin = copy.deepcopy(model)
    device.compile(twin)
    compiled = directsam.DirectSam(twin, settings, device, image_batch=1)
    try:
        found = compiled.boundaries(frames[:1, :64, :64])
    except Exception as error:
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            pytest.skip(f"torch.compile does not work here: {str(error).splitlines()[0]}")
        raise
    expected = plain.boundaries(frames[:1, :64, :64])
    assert (found != expected).any(), "it did run another program"
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    clear = np.abs(expected - settings.threshold) > 1e-5
    assert clear.mean() > 0.99
    inside = expected < settings.threshold
    assert 0.1 < inside.mean() < 0.9
    np.testing.assert_array_equal((found < settings.threshold)[clear], inside[clear])
    assert twin.state_dict().keys() == model.state_dict().keys()


def test_boundaries_equal_transformers_forward(segmenter, model, torch, transformers, frames):
    expected = 1 / (1 + np.exp(-logits_of(torch, transformers, model, frames)))
    found = segmenter.boundaries(frames)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    assert np.ptp(expected) > 0.05
    segments = segmenter.segment(frames)
    assert segments.max((1, 2)).min() >= 10
    # Two frames went through the model together, and one alone.
    assert len({frame.tobytes() for frame in segments}) == 3


def test_segments(segmenter, frames):
    assert isinstance(segmenter, Segmenter)
    segments = segmenter.segment(frames)
    inside = segmenter.boundaries(frames) < SETTINGS.threshold
    for labels, interior in zip(segments, inside, strict=True):
        areas = np.bincount(labels.reshape(-1))[1:]
        assert (areas > 0).all()
        # They grew over the boundary, and what was too small belongs to none or to a neighbour.
        assert (labels > 0).sum() > interior.sum()


def test_the_threshold_is_applied_on_the_device_as_here(segmenter, frames):
    """Also where a pixel is exactly at it."""
    boundaries = segmenter.boundaries(frames)
    middle = float(np.sort(boundaries, axis=None)[boundaries.size // 2])
    for threshold in (SETTINGS.threshold, middle):
        segmenter._settings = dataclasses.replace(SETTINGS, threshold=threshold)
        inside = segmenter._inside(frames)
        assert inside.dtype == bool and 0.1 < inside.mean() < 0.9
        np.testing.assert_array_equal(inside, boundaries < threshold)


def test_labels_have_the_size_of_the_frames(segmenter, frames):
    small = np.ascontiguousarray(frames[:1, ::5, ::7])
    segments = segmenter.segment(small)
    assert segments.shape == small.shape[:3]
    np.testing.assert_array_equal(np.setdiff1d(segments, [0]), 1 + np.arange(segments.max()))


def test_the_published_model_has_85_million_parameters(directsam, torch, transformers):
    with torch.device("meta"):
        model = transformers.SegformerForSemanticSegmentation(directsam.architecture("b5"))
    assert sum(weight.numel() for weight in model.parameters()) == 84_594_113


def test_weights_are_safetensors_of_the_right_size(directsam, model, torch, tmp_path):
    import safetensors.torch

    from tokenization.devices import Device
    from tokenization.weights import WeightsError

    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(model.state_dict(), path)
    loaded = directsam.build_model(SETTINGS, Device(RUNNING), path)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    with pytest.raises(WeightsError, match=r"no weights of a SegFormer b5 .* of another size\?"):
        directsam.build_model(DirectSamSettings(), Device(RUNNING), path)
    path.write_bytes(b"no tensors at all")
    with pytest.raises(WeightsError, match="no weights of a SegFormer b0"):
        directsam.build_model(SETTINGS, Device(RUNNING), path)
