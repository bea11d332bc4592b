"""The batched EdgeTAM tracker against transformers' EdgeTamVideoModel, object by object."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from tokenization.learned import DeviceSettings, EdgeTamSettings
from tokenization.protocols import Clip, Tracker

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("one_thread")]

SETTINGS = EdgeTamSettings(resolution=256)
RUNNING = DeviceSettings(device="cpu", precision="float32")
CLOSE = 1e-5
VISION = {
    "model_type": "edgetam_vision_model",
    "backbone_config": {
        "model_type": "timm_wrapper",
        "architecture": "repvit_m1.dist_in1k",
        "model_args": {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
        "num_classes": 1000,
    },
}


@pytest.fixture(scope="module")
def edgetam(transformers):
    from tokenization.trackers import edgetam

    return edgetam


@pytest.fixture(scope="module")
def model(edgetam, respond):
    """Objects are always there."""
    from tokenization.devices import Device

    # By this seed about half of the logits are positive.
    model = respond(edgetam.build_model(SETTINGS, Device(RUNNING), None), 5)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(100)
    for head in model.mask_decoder.output_hypernetworks_mlps:
        head.proj_out.weight.data *= 0.2
        head.proj_out.bias.data *= 0.2
    return model


def clip(t: int, labels: tuple[int, ...], *, seed: int) -> Clip:
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (16, 16, 3)).repeat(16, 0).repeat(16, 1)
    frames = np.stack([np.roll(noise, 3 * i, 1) for i in range(t)]).astype(np.uint8)
    segments = np.zeros((256, 256), np.int32)
    for place, label in enumerate(labels):
        segments[40 : 120 + 30 * place, 70 * place + 10 : 70 * place + 70] = label
    return Clip(frames, {0: segments})


def follow(edgetam, model, device, clips, masks):
    """Logits of the objects of clips of one length, as one batch."""
    import torch

    ours = edgetam.EdgeTamModel(model)
    length = len(clips[0].frames)
    with device.inference():
        features = ours.encode(device.images(np.concatenate([c.frames for c in clips]), ours.side))
        frames = np.concatenate(
            [np.tile(np.arange(length) + length * i, (len(its), 1)) for i, its in enumerate(masks)]
        )
        prompts = torch.from_numpy(np.concatenate(masks)[:, None].astype(np.float32))
        return torch.cat(list(ours.follow(features, frames, prompts)), 1).float().numpy()


def masks_of(one: Clip) -> np.ndarray:
    return np.stack([one.segments[0] == i for i in np.setdiff1d(one.segments[0], [0])])


@pytest.fixture(scope="module")
def clips() -> list[Clip]:
    return [clip(4, (1, 2), seed=1), clip(4, (3,), seed=2)]


@pytest.fixture(scope="module")
def logits(edgetam, model, clips):
    from tokenization.devices import Device

    return follow(edgetam, model, Device(RUNNING), clips, [masks_of(one) for one in clips])


def test_logits_equal_those_of_transformers(torch, transformers, edgetam, model, clips, logits):
    from tokenization.devices import Device

    theirs = transformers.EdgeTamVideoModel(model.config).eval()
    theirs.load_state_dict(model.state_dict())
    expected = []
    for one in clips:
        session = transformers.EdgeTamVideoInferenceSession(
            video=Device(RUNNING).images(one.frames, SETTINGS.resolution),
            video_height=256,
            video_width=256,
            dtype=torch.float32,
        )
        for number, mask in enumerate(masks_of(one)):
            index = session.obj_id_to_idx(number)
            session.add_mask_inputs(index, 0, torch.from_numpy(mask[None, None]))
            session.obj_with_new_inputs.append(number)
        found = [theirs(session, frame_idx=t).pred_masks for t in range(len(one.frames))]
        expected.append(torch.cat(found[1:], 1).numpy())
    expected = np.concatenate(expected)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=CLOSE)
    clear = np.abs(expected) > 1e-3
    np.testing.assert_array_equal((logits > 0)[clear], (expected > 0)[clear])
    assert (expected > 0).mean((2, 3)).min() > 0.1
    assert (expected < 0).mean((2, 3)).min() > 0.1


def test_swapped_prompts_move_every_logit_map(edgetam, model, clips, logits):
    from tokenization.devices import Device

    first, second = clips
    masks = [masks_of(first)[::-1], masks_of(first)[1:]]
    swapped = follow(edgetam, model, Device(RUNNING), [first, second], masks)
    assert np.abs(swapped - logits).max((2, 3)).min() >= 30 * CLOSE


def test_tracker(edgetam, model, clips):
    from tokenization.devices import Device
    from tokenization.trackers.batched import BatchedTracker

    device = Device(dataclasses.replace(RUNNING, precision="bfloat16"))
    tracker = BatchedTracker("edgetam", edgetam.EdgeTamModel(model), device, RUNNING)
    assert isinstance(tracker, Tracker)
    long = clip(9, (7,), seed=3)  # longer than the memory bank
    for labels, given in zip(tracker.track([clips[1], long]), [clips[1], long], strict=True):
        assert labels.shape == given.frames.shape[:3]
        np.testing.assert_array_equal(np.unique(labels), np.unique(given.segments[0]))


def test_published_files(edgetam, model, torch, tmp_path):
    import safetensors.torch

    from tokenization.devices import Device
    from tokenization.weights import WeightsError

    paths = [tmp_path / "model.safetensors", tmp_path / "config.json"]
    safetensors.torch.save_file(model.state_dict(), paths[0])
    paths[1].write_text(json.dumps(model.config.to_dict()))
    loaded = edgetam.build_model(SETTINGS, Device(RUNNING), paths)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)
    paths[0].write_bytes(b"no tensors at all")
    with pytest.raises(WeightsError, match="no weights of EdgeTAM"):
        edgetam.build_model(SETTINGS, Device(RUNNING), paths)


def test_the_published_encoder(edgetam, torch, tmp_path):
    """RepViT by timm, in the size of the released model, with random weights."""
    pytest.importorskip("timm", reason="timm is not installed: `make sam2`")
    import safetensors.torch

    from tokenization.devices import Device

    paths = [tmp_path / "model.safetensors", tmp_path / "config.json"]
    paths[1].write_text(json.dumps({"vision_config": VISION}))
    config = edgetam._read(paths[1])
    edgetam._resize(config, SETTINGS.resolution)
    made = edgetam.ObjectBatches(config)
    safetensors.torch.save_file(made.state_dict(), paths[0])
    device = Device(RUNNING)
    loaded = edgetam.EdgeTamModel(edgetam.build_model(SETTINGS, device, paths))
    with device.inference():
        levels = loaded.encode(torch.zeros(1, 3, 256, 256))
    assert [level.shape[:2] for level in levels] == [(1, 64 * 64), (1, 32 * 32), (1, 16 * 16)]


def test_published_weights_without_timm_name_what_to_install(
    transformers, edgetam, tmp_path, monkeypatch
):
    from tokenization.backends import MissingBackend
    from tokenization.devices import Device

    # What transformers asks before it uses timm; the error is its own.
    known = transformers.utils.import_utils.BACKENDS_MAPPING
    monkeypatch.setitem(known, "timm", (lambda: False, known["timm"][1]))
    config, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    config.write_text(json.dumps({"vision_config": VISION}))
    with pytest.raises(MissingBackend, match="make sam2"):
        edgetam.build_model(SETTINGS, Device(RUNNING), [weights, config])
