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

SETTINGS = ResNetSettings(stem=8, widths=(8, 16, 24), depths=(2, 1, 2))
BATCH, HEIGHT, WIDTH = 3, 48, 32
MOMENTUM = 0.9


def module_names():
    """Modules of ResNetModel -> ours."""
    blocks = {"embedder.embedder": "stem"}
    for stage, depth in enumerate(SETTINGS.depths):
        for block in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{block}", f"stages.{stage}.{block}"
            blocks[f"{theirs}.layer.0"] = f"{ours}.first"
            blocks[f"{theirs}.layer.1"] = f"{ours}.second"
            blocks[f"{theirs}.shortcut"] = f"{ours}.shortcut"
    parts = {"convolution": "conv", "normalization": "norm"}
    return {f"{a}.{c}": f"{b}.{d}" for a, b in blocks.items() for c, d in parts.items()}


def random_images():
    return np.random.default_rng(0).normal(size=(BATCH, HEIGHT, WIDTH, 3)).astype(np.float32)


@pytest.fixture
def theirs(transformers, randomize):
    config = transformers.ResNetConfig(
        layer_type="basic",
        embedding_size=SETTINGS.stem,
        hidden_sizes=list(SETTINGS.widths),
        depths=list(SETTINGS.depths),
    )
    return randomize(transformers.ResNetModel(config))


@pytest.fixture
def ours(theirs, renamed, built):
    weights = renamed(theirs.state_dict(), module_names())
    return built(lambda: ResNet(SETTINGS, rngs=nnx.Rngs(0)), weights)


def pyramid(model, images):
    """Their features of every stage, channels last."""
    # torch 2.13 on CPU corrupts its heap in the backward pass of a strided 1x1 convolution whose
    # input is stored channels last, as the view that permute gives is.
    images = images.permute(0, 3, 1, 2).contiguous()
    states = model(images, output_hidden_states=True).hidden_states
    return [state.permute(0, 2, 3, 1) for state in states[1:]]


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
def test_features_and_gradients(torch, theirs, ours, renamed, gradients_of, flat, close, train):
    images = random_images()
    leaf = torch.tensor(images, requires_grad=True)
    expected = pyramid(theirs.train(train), leaf)
    rng = np.random.default_rng(1)
    probes = [rng.normal(size=feature.shape).astype(np.float32) for feature in expected]
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
    close(flat(gradients), renamed(gradients_of(theirs), module_names()))


def test_running_statistics(torch, theirs, ours, renamed, flat, close):
    """Both keep 0.9 of the old ones; of n cells, torch's variance divides by n - 1, ours by n."""
    before = flat(nnx.state(ours, nnx.BatchStat))
    images = random_images()
    with torch.no_grad():
        pyramid(theirs.train(), torch.tensor(images))
    features = nnx.jit(lambda model, images: model(images, train=True))(ours, jnp.asarray(images))
    expected = renamed(theirs.state_dict(), module_names())

    cells = {"stem": BATCH * HEIGHT * WIDTH // 4}
    cells |= {f"stages.{i}": int(np.prod(f.shape[:3])) for i, f in enumerate(features)}
    for name, statistic in flat(nnx.state(ours, nnx.BatchStat)).items():
        if name.endswith("var"):
            n = next(n for part, n in cells.items() if name.startswith(f"{part}."))
            kept = MOMENTUM * before[name]
            statistic = kept + (statistic - kept) * n / (n - 1)
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
