"""The video encoder against the layers of transformers' ViTModel."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.tokens import Tokens, one_video_a_row
from trajvit_jax.models.transformer import Encoder

pytestmark = pytest.mark.torch

SETTINGS = EncoderSettings(width=24, depth=3, heads=3, mlp=40)
LAYER = {
    "layernorm_before": "norm_attention",
    "attention.q_proj": "query",
    "attention.k_proj": "key",
    "attention.v_proj": "value",
    "attention.o_proj": "attention_out",
    "layernorm_after": "norm_mlp",
    "mlp.fc1": "mlp_in",
    "mlp.fc2": "mlp_out",
}


@pytest.fixture
def theirs(transformers, randomize):
    config = transformers.ViTConfig(
        hidden_size=SETTINGS.width,
        num_hidden_layers=SETTINGS.depth,
        num_attention_heads=SETTINGS.heads,
        intermediate_size=SETTINGS.mlp,
        layer_norm_eps=SETTINGS.layer_norm_eps,
        image_size=16,
    )
    return randomize(transformers.ViTModel(config, add_pooling_layer=False))


@pytest.fixture
def in_our_names(renamed, stacked):
    """Weights or gradients of a ViTModel, named as an Encoder's."""

    def convert(tensors):
        modules = {
            f"layers.{index}.{theirs}": f"{index}.{ours}"
            for index in range(SETTINGS.depth)
            for theirs, ours in LAYER.items()
        }
        cls = tensors["embeddings.cls_token"].detach().numpy().reshape(-1)
        layers = stacked(renamed(tensors, modules), SETTINGS.depth)
        return {"cls": cls, **layers, **renamed(tensors, {"layernorm": "norm"})}

    return convert


@pytest.fixture
def ours(theirs, built, in_our_names):
    weights = in_our_names(theirs.state_dict())
    return built(lambda: Encoder(SETTINGS, rngs=nnx.Rngs(0)), weights)


def encode(torch, model, tokens, mask=None):
    """Their encoder on (b, s, d) tokens after CLS, without patches and positions."""
    cls = model.embeddings.cls_token.expand(len(tokens), -1, -1)
    states = torch.cat([cls, tokens], 1)
    for layer in model.layers:
        states = layer(states, mask)
    return model.layernorm(states)


@nnx.jit
def run(model, tokens, probe):
    """States, and the gradients of what `probe` weighs of them."""

    def probed(model, values):
        states = model(tokens.replace(values=values))
        return (states * probe).sum(), states

    return nnx.grad(probed, argnums=(0, 1), has_aux=True)(model, tokens.values)


def test_packed_rows(torch, theirs, ours, in_our_names, gradients_of, flat, close):
    """Three videos in two rows, one of them out of order, are three separate runs of theirs."""
    video = np.array([[2, 2, 1, 2, 1, 1, 1, 0], [0, 3, 3, 0, 3, 3, 3, 3]])
    query = np.array([[1, 0, 0, 1, 1, 1, 1, 0], [0, 1, 1, 0, 0, 1, 1, 1]])
    rng = np.random.default_rng(0)
    values, probe = rng.normal(size=(2, *video.shape, SETTINGS.width)).astype(np.float32)
    probe[video == 0] = 0

    leaf, expected = torch.tensor(values, requires_grad=True), np.zeros_like(values)
    for number in (1, 2, 3):
        cls, rest = (video == number) & (query == 0), (video == number) & (query > 0)
        states = encode(torch, theirs, leaf[torch.tensor(rest)][None])[0]
        # CLS first: `weights` follows the order of their tokens.
        weights = torch.tensor(np.concatenate([probe[cls], probe[rest]]))
        (states * weights).sum().backward()
        expected[cls], expected[rest] = states[:1].detach(), states[1:].detach()

    tokens = Tokens(*map(jnp.asarray, (values, video, query)))
    (gradients, value_gradient), states = run(ours, tokens, jnp.asarray(probe))
    close(np.where(video[..., None] > 0, states, 0), expected)
    close(value_gradient, leaf.grad)
    close(flat(gradients), in_our_names(gradients_of(theirs)))


def test_padding(torch, theirs, ours, in_our_names, gradients_of, flat, close):
    """One video a row, unused slots masked on both sides."""
    valid = np.array([[1, 1, 1, 1, 1, 1, 1, 1], [1, 1, 0, 1, 0, 0, 1, 0]], bool)
    rng = np.random.default_rng(0)
    values, probe = rng.normal(size=(2, *valid.shape, SETTINGS.width)).astype(np.float32)
    probe[~valid] = 0

    leaf, mask = torch.tensor(values, requires_grad=True), torch.tensor(valid)
    expected = encode(torch, theirs, leaf[:, 1:], mask[:, None, None])
    (expected * torch.tensor(probe)).sum().backward()

    tokens = one_video_a_row(jnp.asarray(values), jnp.asarray(valid))
    (gradients, value_gradient), states = run(ours, tokens, jnp.asarray(probe))
    close(np.asarray(states)[valid], expected[mask])
    close(value_gradient, leaf.grad)
    close(flat(gradients), in_our_names(gradients_of(theirs)))
