"""The text encoder against transformers' BertModel."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.settings import TextSettings
from trajvit_jax.models.text import TextEncoder

pytestmark = pytest.mark.torch

SETTINGS = TextSettings(vocabulary=40, length=12, positions=12, width=24, depth=3, heads=3, mlp=40)
LAYER = {
    "attention.self.query": "query",
    "attention.self.key": "key",
    "attention.self.value": "value",
    "attention.output.dense": "attention_out",
    "attention.output.LayerNorm": "norm_attention",
    "intermediate.dense": "mlp_in",
    "output.dense": "mlp_out",
    "output.LayerNorm": "norm_mlp",
}


@pytest.fixture
def theirs(transformers, randomize):
    config = transformers.BertConfig(
        vocab_size=SETTINGS.vocabulary,
        max_position_embeddings=SETTINGS.positions,
        hidden_size=SETTINGS.width,
        num_hidden_layers=SETTINGS.depth,
        num_attention_heads=SETTINGS.heads,
        intermediate_size=SETTINGS.mlp,
    )
    return randomize(transformers.BertModel(config, add_pooling_layer=False))


@pytest.fixture
def in_our_names(renamed, stacked):
    """Weights or gradients of a BertModel, named as those of a TextEncoder of `depth` layers."""

    def convert(tensors, depth):
        modules = {
            f"encoder.layer.{index}.{theirs}": f"{index}.{ours}"
            for index in range(depth)
            for theirs, ours in LAYER.items()
        }
        embeddings = {
            f"{name}.embedding": tensors[f"embeddings.{name}_embeddings.weight"].detach().numpy()
            for name in ("word", "position", "token_type")
        }
        norm = renamed(tensors, {"embeddings.LayerNorm": "norm"})
        return {**embeddings, **norm, **stacked(renamed(tensors, modules), depth)}

    return convert


def captions():
    """Ids, and which of them are words: the rest is padding (id 0)."""
    mask = np.arange(10) < np.array([10, 7, 1])[:, None]
    ids = np.random.default_rng(0).integers(1, SETTINGS.vocabulary, mask.shape)
    return np.where(mask, ids, 0), mask


@pytest.mark.parametrize("depth", [3, 2], ids=["all layers", "the first two"])
def test_states_and_gradients(torch, theirs, built, in_our_names, gradients_of, flat, close, depth):
    ids, mask = captions()
    probe = np.random.default_rng(1).normal(size=(*ids.shape, SETTINGS.width)).astype(np.float32)
    probe[~mask] = 0

    outputs = theirs(torch.tensor(ids), torch.tensor(mask), output_hidden_states=True)
    expected = outputs.hidden_states[depth]
    (expected * torch.tensor(probe)).sum().backward()

    weights = in_our_names(theirs.state_dict(), depth)
    settings = dataclasses.replace(SETTINGS, layers_run=depth)
    ours = built(lambda: TextEncoder(settings, rngs=nnx.Rngs(0)), weights)

    @nnx.jit
    def run(model, ids, mask):
        def probed(model):
            states = model(ids, mask)
            return (states * probe).sum(), states

        return nnx.grad(probed, has_aux=True)(model)

    gradients, states = run(ours, jnp.asarray(ids), jnp.asarray(mask))
    close(states, expected)
    close(flat(gradients), in_our_names(gradients_of(theirs), depth))
