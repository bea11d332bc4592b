"""Hiera against transformers' HieraModel; bicubic resizing against torch's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.hiera import Hiera
from trajvit_jax.models.settings import HieraSettings

pytestmark = pytest.mark.torch

SETTINGS = HieraSettings(
    image_size=64, width=8, depths=(1, 2, 2, 1), heads=(1, 2, 2, 4), mlp_ratio=3.0
)
BLOCK = {
    "layernorm_before": "norm_attention",
    "attn.qkv": "query_key_value",
    "attn.proj": "attention_out",
    "layernorm_after": "norm_mlp",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
}


def hiera_names(settings: HieraSettings) -> dict[str, str]:
    """Tensors of a HieraModel -> dotted paths of our parameters.

    HieraModel's pooler is no part of the pyramid. Checkpoints of a model with a head put
    'hiera.' before these names.
    """
    modules = {"embeddings.patch_embeddings.projection": ("patches", "kernel")}
    for stage, depth in enumerate(settings.depths):
        for block in range(depth):
            theirs, ours = f"encoder.stages.{stage}.layers.{block}", f"stages.{stage}.{block}"
            for their_part, our_part in BLOCK.items():
                weight = "scale" if our_part.startswith("norm") else "kernel"
                modules[f"{theirs}.{their_part}"] = (f"{ours}.{our_part}", weight)
            if stage and not block:
                modules[f"{theirs}.proj"] = (f"{ours}.shortcut", "kernel")
    names = {"embeddings.position_embeddings": "position"}
    for theirs, (ours, weight) in modules.items():
        names[f"{theirs}.weight"] = f"{ours}.{weight}"
        names[f"{theirs}.bias"] = f"{ours}.bias"
    return names


def hiera_layout(array: np.ndarray) -> np.ndarray:
    """A HieraModel tensor in the layout of our parameter: input axes first, tables as maps."""
    if array.ndim == 3:
        side = round(array.shape[1] ** 0.5)
        return array.reshape(side, side, -1)
    return array.transpose({1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[array.ndim])


def in_our_names(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Weights or gradients of a HieraModel, named and laid out as ours."""
    return {
        ours: hiera_layout(tensors[theirs].detach().numpy())
        for theirs, ours in hiera_names(SETTINGS).items()
    }


def their_config(transformers, settings, image_size):
    return transformers.HieraConfig(
        image_size=list(image_size),
        embed_dim=settings.width,
        depths=list(settings.depths),
        num_heads=list(settings.heads),
        mlp_ratio=settings.mlp_ratio,
        masked_unit_attention=list(settings.unit_attention),
        layer_norm_eps=settings.layer_norm_eps,
    )


def their_model(transformers, settings, image_size):
    config = their_config(transformers, settings, image_size)
    return transformers.HieraModel(config, add_pooling_layer=False)


def pyramid(transformers, model, images, settings):
    """Their features of every stage, channels last."""
    size = tuple(images.shape[1:3])
    # They take the shapes of the maps from the configuration, whatever the images are.
    model.encoder.schedule = their_model(transformers, settings, size).encoder.schedule
    states = model(
        images.permute(0, 3, 1, 2).contiguous(),
        output_hidden_states=True,
        interpolate_pos_encoding=True,
    )
    return states.reshaped_hidden_states[1:]


@pytest.mark.parametrize(
    ("unit_attention", "size"),
    [((True, True, False, False), (64, 64)), ((False, True, False, True), (96, 32))],
    ids=["square", "other-units-interpolated"],
)
def test_features_and_gradients(
    torch, transformers, randomize, built, gradients_of, flat, close, unit_attention, size
):
    settings = dataclasses.replace(SETTINGS, unit_attention=unit_attention)
    theirs = randomize(their_model(transformers, settings, (settings.image_size,) * 2))
    ours = built(lambda: Hiera(settings, rngs=nnx.Rngs(0)), in_our_names(theirs.state_dict()))

    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, *size, 3)).astype(np.float32)
    leaf = torch.tensor(images, requires_grad=True)
    expected = pyramid(transformers, theirs, leaf, settings)
    probes = [rng.normal(size=feature.shape).astype(np.float32) for feature in expected]
    sum((f * torch.tensor(p)).sum() for f, p in zip(expected, probes, strict=True)).backward()

    @nnx.jit
    def run(model, images):
        def probed(model, images):
            features = model(images, train=True)
            return sum((f * p).sum() for f, p in zip(features, probes, strict=True)), features

        return nnx.grad(probed, argnums=(0, 1), has_aux=True)(model, images)

    (gradients, image_gradient), features = run(ours, jnp.asarray(images))
    for stage, (feature, other) in enumerate(zip(features, expected, strict=True)):
        close(feature, other, f"stage {stage}")
    close(image_gradient, leaf.grad, "images")
    close(flat(gradients), in_our_names(gradients_of(theirs)))


def test_hiera_small_has_the_shapes_of_theirs(torch, transformers):
    settings = HieraSettings()
    with torch.device("meta"):
        theirs = their_model(transformers, settings, (224, 224))
    names = hiera_names(settings)
    expected = {
        names[name]: hiera_layout(np.broadcast_to(np.float32(0), tensor.shape)).shape
        for name, tensor in theirs.state_dict().items()
    }
    ours = nnx.eval_shape(lambda: Hiera(settings, rngs=nnx.Rngs(0)))
    leaves = nnx.to_flat_state(nnx.state(ours))
    assert {".".join(map(str, path)): leaf.shape for path, leaf in leaves} == expected
