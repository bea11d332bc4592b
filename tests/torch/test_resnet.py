"""ResNet against transformers' ResNetModel, max pooling against torch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.resnet import ResNet, max_pool
from trajvit_jax.models.settings import ResNetSettings

pytestmark = pytest.mark.torch

BASIC = ResNetSettings(stem=8, widths=(8, 16, 24), depths=(2, 1, 2))
BOTTLENECK = ResNetSettings(stem=8, widths=(16, 24), depths=(2, 2), block="bottleneck")
LAYERS = {"basic": 2, "bottleneck": 3}
BATCH, HEIGHT, WIDTH = 3, 48, 32


def module_names(settings):
    """Modules of ResNetModel -> ours."""
    blocks = {"embedder.embedder": "stem"}
    for stage, depth in enumerate(settings.depths):
        for block in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{block}", f"stages.{stage}.{block}"
            for layer in range(LAYERS[settings.block]):
                blocks[f"{theirs}.layer.{layer}"] = f"{ours}.convs.{layer}"
            blocks[f"{theirs}.shortcut"] = f"{ours}.shortcut"
    parts = {"convolution": "conv", "normalization": "norm"}
    return {f"{a}.{c}": f"{b}.{d}" for a, b in blocks.items() for c, d in parts.items()}


def random_images():
    """Images that keep every ReLU and every maximum of these models clear of where it turns.

    One that rounding tips over changes gradients by 10% of their greatest: with others than these
    it happens on some processors.
    """
    return np.random.default_rng(6).normal(size=(BATCH, HEIGHT, WIDTH, 3)).astype(np.float32)


@pytest.fixture(params=[BASIC, BOTTLENECK], ids=lambda settings: settings.block)
def settings(request):
    return request.param


@pytest.fixture
def theirs(transformers, randomize, settings):
    config = transformers.ResNetConfig(
        layer_type=settings.block,
        embedding_size=settings.stem,
        hidden_sizes=list(settings.widths),
        depths=list(settings.depths),
    )
    return randomize(transformers.ResNetModel(config))


@pytest.fixture
def ours(theirs, renamed, built, settings):
    weights = renamed(theirs.state_dict(), module_names(settings))
    return built(lambda: ResNet(settings, rngs=nnx.Rngs(0)), weights)


def pyramid(model, images):
    """Their features of every stage, channels last."""
    # torch 2.13 on CPU corrupts its heap in the backward pass of a strided 1x1 convolution whose
    # input is stored channels last, as the view that permute gives is.
    images = images.permute(0, 3, 1, 2).contiguous()
    states = model(images, output_hidden_states=True).hidden_states
    return [state.permute(0, 2, 3, 1) for state in states[1:]]


def margins(torch, model):
    """Collects how near to a turn its ReLUs and maxima come, whenever the model is called."""
    found = []

    def note(module, inputs):
        x = inputs[0].detach()
        if isinstance(module, torch.nn.ReLU):
            found.append(x.abs()[x != 0].min().item())
        if isinstance(module, torch.nn.MaxPool2d):
            windows = torch.nn.functional.unfold(x, 3, padding=1, stride=2)
            windows = windows.reshape(x.shape[0], x.shape[1], 9, -1)
            first, second = windows.topk(2, dim=2).values.unbind(2)
            found.append((first - second)[first > 0].min().item())

    for module in model.modules():
        module.register_forward_pre_hook(note)
    return found


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_features_and_gradients(
    torch, theirs, ours, settings, renamed, gradients_of, flat, close, train
):
    images = random_images()
    leaf = torch.tensor(images, requires_grad=True)
    near = margins(torch, theirs)
    expected = pyramid(theirs.train(train), leaf)
    assert min(near) > 5e-5, "rounding may tip a ReLU or a maximum over: draw other images"
    rng = np.random.default_rng(1)
    # Some gradients are zero but for rounding: keep that small beside the bound.
    probes = [rng.normal(size=f.shape).astype(np.float32) / 4 for f in expected]
    sum((f * torch.tensor(p)).sum() for f, p in zip(expected, probes, strict=True)).backward()

    @nnx.jit
    def run(model, images):
        def probed(model, images):
            features = model(images, train=train)
            return sum((f * p).sum() for f, p in zip(features, probes, strict=True)), features

        return nnx.grad(probed, argnums=(0, 1), has_aux=True)(model, images)

    (gradients, image_gradient), features = run(ours, jnp.asarray(images))
    for feature, other in zip(features, expected, strict=True):
        close(feature, other)
    close(image_gradient, leaf.grad)
    close(flat(gradients), renamed(gradients_of(theirs), module_names(settings)))


def test_running_statistics(torch, theirs, ours, settings, renamed, flat, close):
    images = random_images()
    with torch.no_grad():
        pyramid(theirs.train(), torch.tensor(images))
    nnx.jit(lambda model, images: model(images, train=True))(ours, jnp.asarray(images))
    expected = renamed(theirs.state_dict(), module_names(settings))
    statistics = flat(nnx.state(ours, nnx.BatchStat))
    assert statistics.keys() == {n for n in expected if n.rpartition(".")[2] in ("mean", "var")}
    for name, statistic in statistics.items():
        close(statistic, expected[name], name)


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 2)])
def test_max_pool(torch, close, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32)
    leaf = torch.tensor(x, requires_grad=True)
    expected = torch.nn.functional.max_pool2d(leaf.permute(0, 3, 1, 2), 3, stride=2, padding=1)
    expected = expected.permute(0, 2, 3, 1)
    probe = rng.normal(size=expected.shape).astype(np.float32)
    expected.backward(torch.tensor(probe))

    actual, pull_back = jax.vjp(max_pool, jnp.asarray(x))
    close(actual, expected)
    close(pull_back(jnp.asarray(probe))[0], leaf.grad)
