"""The benchmark's PyTorch encoders against numbers printed by the released program."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from trajvit_jax.models.settings import SIZES, EncoderSettings

pytestmark = pytest.mark.torch

BOUND = 2e-5


@pytest.fixture(autouse=True)
def one_thread(torch):
    """On tiny tensors threads only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoders(torch):
    return importlib.import_module("benchmarks.parts.encoder_torch")


@pytest.fixture
def saved(golden, tmp_path):
    """Writes a golden file anew, with other values for some of its arrays, and returns its path."""

    def save(name, **changes):
        path = tmp_path / f"{name}.npz"
        np.savez(path, **golden(name) | changes)
        return path

    return save


@pytest.fixture
def tiny(golden):
    """Weights with rotary positions, and the file they are from."""
    file = golden("trajvit_tiny")
    weights = {name[3:]: value for name, value in file.items() if name.startswith("sd/")}
    return {k: v for k, v in weights.items() if "media_pos_emb" not in k}, file


@pytest.fixture
def run(encoders):
    """Builds a model of these weights; returns it and its states of the golden clip."""

    def build_and_run(weights, file, *, train_resnet=False):
        sizes = encoders.released_sizes(weights, heads=int(file["heads"]), boxes=False)
        model = encoders.TrajViTTorch(sizes).eval()
        encoders.load_released(model, weights)
        model.appearance_tokenizer.train(train_resnet)
        return model, model(*encoders.golden_clips(file)["out"])

    return build_and_run


def test_every_released_variant(encoders, saved):
    assert encoders.golden_error(saved("trajvit_tiny")) <= BOUND


def test_vit3d(encoders, saved):
    assert encoders.vit3d_golden_error(saved("vit3d_vivit")) <= BOUND


@pytest.mark.parametrize("name", ["out/rot1_bb1_eager_once", "out_t32/rot0_bb0_sdpa_twice"])
def test_one_wrong_variant_shows(encoders, golden, saved, name):
    off = golden("trajvit_tiny")[name] + np.float32(0.01)
    assert encoders.golden_error(saved("trajvit_tiny", **{name: off})) > BOUND


def test_a_wrong_vit3d_shows(encoders, golden, saved):
    name = "vit3d_poolcls_norm1/out_t4"
    off = golden("vit3d_vivit")[name] + np.float32(0.01)
    assert encoders.vit3d_golden_error(saved("vit3d_vivit", **{name: off})) > BOUND


def test_one_resampler_layer(golden, tiny, run, close):
    weights, file = tiny
    shallow = {k: v for k, v in weights.items() if "mapper.layers.1." not in k}
    _, states = run(shallow, file)
    close(states.detach(), golden("trajvit_tiny_ablations")["out/perceiver_depth1"])


def test_final_norm(golden, tiny, run, close):
    weights, file = tiny
    ablations = golden("trajvit_tiny_ablations")
    norm = {
        f"norm.{leaf}": ablations[f"final_layernorm/sd/norm.{leaf}"] for leaf in ("weight", "bias")
    }
    _, states = run(weights | norm, file)
    close(states.detach(), ablations["out/final_layernorm"])


def test_a_training_step(torch, tiny, run, close, gradients_of):
    """Gradients of every weight, and the batch statistics that the step leaves behind."""
    weights, file = tiny
    model, states = run(weights, file, train_resnet=True)
    close(states.detach(), file["train/out"])
    ((states * torch.from_numpy(file["train/loss_weight"])).sum() / 100).backward()
    for prefix, tensors in (
        ("train/grad/", gradients_of(model)),
        ("train/buffer_after/", dict(model.named_buffers())),
    ):
        expected = {k.removeprefix(prefix): v for k, v in file.items() if k.startswith(prefix)}
        assert expected
        close({name: tensors[name] for name in expected}, expected)
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert gradients_of(model).keys() == trained


def test_weights_that_do_not_fit(encoders, tiny, run):
    weights, file = tiny
    name = "pos_encoder.motion_token_mapper.latents"
    with pytest.raises(KeyError, match=rf"missing: \['{name}'\]; left over: \[\]"):
        run({k: v for k, v in weights.items() if k != name}, file)
    with pytest.raises(KeyError, match=r"missing: \[\]; left over: \['extra'\]"):
        run(weights | {"extra": np.zeros(1, np.float32)}, file)


def test_sizes_of_the_paper(torch, encoders):
    """Parameters as in the paper's Table 8, with its one layer a resampler."""
    with torch.device("meta"):
        model, plain = encoders.trajvit(SIZES["L"]), encoders.vit3d(SIZES["L"])

    def count(module):
        return sum(weight.numel() for weight in module.parameters())

    tokenizer, width = model.appearance_tokenizer, 1024
    assert count(tokenizer.resnet) == 11_176_512
    assert count(tokenizer) - count(tokenizer.resnet) == 989_184
    resampler = 4 * width**2 + 7 * width  # no bias; one latent and three LayerNorms
    assert count(model.appearance_token_mapper) == resampler
    assert count(model.pos_encoder) == resampler
    assert count(model.vision_encoder.vit) == count(plain.encoder) == 302_309_376
    assert plain.positional_embeddings_3d.shape == (1, 1569, width)


def test_contenders_have_the_names_that_bounds_look_for(encoders):
    small = EncoderSettings(width=16, depth=1, heads=2, mlp=32)
    video = np.random.default_rng(0).normal(size=(1, 2, 32, 32, 3)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 5, (1, 2, 8, 8)).astype(np.int32)
    forward, both = (
        {(one.stage, one.name) for one in encoders.contenders(small, video, labels, 4, train=train)}
        for train in (False, True)
    )
    assert {("forward", "PyTorch"), ("forward", "ViT3D PyTorch")} <= forward
    assert both == {("train step", "PyTorch"), ("train step", "ViT3D PyTorch")}
