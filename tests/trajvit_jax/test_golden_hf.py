"""BERT, ResNet and ViT of transformers, and the released text tower: the same numbers."""

from __future__ import annotations

import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert import names
from trajvit_jax.convert.conversion import abstract_model, convert
from trajvit_jax.convert.kinds import Choices
from trajvit_jax.convert.pieces import fill, paths, write

TOWER_HEADS = 4  # of the released text tower; its file does not say


def part(converted, *path):
    """A part of the model with its converted arrays; the others need no numbers."""
    converted.report.raise_if_incomplete()
    module = abstract_model(converted.settings)
    for step in path:
        module = getattr(module, step)
    return fill(module, below(converted.arrays, ".".join(path) + "."))


def channels_last(x):
    return np.moveaxis(x, -3, -1)


def heads(hf, model):
    """The number of attention heads, which the file says in words."""
    return Choices(heads=int(re.search(r"heads (\d+)", str(hf[f"{model}/config"]))[1]))


@pytest.fixture(scope="module")
def hf(golden):
    return golden("hf_tiny")


def test_bert(hf, assert_golden):
    converted = convert(below(hf, "bert/sd/"), choices=heads(hf, "bert"))
    assert converted.layout.kind == "bert"
    assert set(converted.report.left_over) == {"pooler.dense.weight", "pooler.dense.bias"}
    encoder = part(converted, "text")
    ids = jnp.asarray(hf["bert/in/input_ids"], jnp.int32)
    mask = hf["bert/in/attention_mask"].astype(bool)
    states = nnx.jit(type(encoder).trace)(encoder, ids, jnp.asarray(mask)).states
    # Padding attends too, to nothing that matters: only real tokens are compared.
    for level, state in enumerate(states):
        expected = hf[f"bert/out/hidden_{level}"]
        assert_golden(np.asarray(state)[mask], expected[mask], f"layer {level}")
    last = nnx.jit(type(encoder).__call__)(encoder, ids, jnp.asarray(mask))
    assert_golden(np.asarray(last)[mask], hf["bert/out/last_hidden_state"][mask], "last")
    pooled = np.tanh(
        last[:, 0] @ hf["bert/sd/pooler.dense.weight"].T + hf["bert/sd/pooler.dense.bias"]
    )
    assert_golden(pooled, hf["bert/out/pooler"], "pooler, of the CLS state")


def test_released_text_tower(golden, assert_golden):
    g = golden("xbert_text_mode")
    state = below(g, "sd/")
    # The layers of its later half, which it does not run, have cross-attention.
    width = state["embeddings.word_embeddings.weight"].shape[1]
    fusion = np.zeros((width, width), np.float32)
    depth = 1 + max(int(n.split(".")[2]) for n in state if n.startswith("encoder.layer."))
    state[f"encoder.layer.{depth}.crossattention.self.query.weight"] = fusion
    converted = convert(state, choices=Choices(heads=TOWER_HEADS))
    assert (converted.settings.text.layers_run, converted.settings.text.depth) == (depth, depth + 1)
    encoder = part(converted, "text")
    mask = g["in/attention_mask"].astype(bool)
    ids = jnp.asarray(g["in/input_ids"], jnp.int32)
    states = nnx.jit(type(encoder).__call__)(encoder, ids, jnp.asarray(mask))
    assert_golden(np.asarray(states)[mask], g["out/text_mode_last_hidden"][mask])


def test_resnet(hf, assert_golden):
    converted = convert(below(hf, "resnet/sd/"))
    assert converted.layout.kind == "resnet"
    resnet = part(converted, "tokenizer", "appearance", "backbone")
    images = jnp.asarray(channels_last(hf["resnet/in/pixel_values"]))

    @nnx.jit
    def run(resnet, images):
        stem = resnet.embed(images, train=False)
        return [stem, *resnet(images, train=False)], resnet(images, train=True)[-1]

    states, trained = run(resnet, images)
    for level, state in enumerate(states):
        assert_golden(state, channels_last(hf[f"resnet/out/hidden_{level}"]), f"level {level}")
    assert_golden(states[-1].mean((1, 2)), hf["resnet/out/pooler"][:, :, 0, 0], "mean of the last")
    assert_golden(trained, channels_last(hf["resnet/train/last"]), "in training")
    prefix = "tokenizer.appearance.backbone."
    ours = {prefix + name: array for name, array in paths(resnet).items()}
    pieces = names.resnet(converted.settings.trajvit.resnet, ours=prefix)
    theirs = write(pieces, ours)
    after = below(hf, "resnet/train/after/")
    assert after
    for name, expected in after.items():
        assert_golden(theirs[name], expected, name)


def test_vit(hf, assert_golden):
    converted = convert(below(hf, "vit/sd/"), choices=heads(hf, "vit"))
    assert converted.layout.kind == "vit"
    tokenizer, encoder = part(converted, "tokenizer"), part(converted, "encoder")
    frames = jnp.asarray(channels_last(hf["vit/in/pixel_values"]))[:, None]
    labels = jnp.zeros((*frames.shape[:2], 1, 1), jnp.int32)

    @nnx.jit
    def run(tokenizer, encoder):
        tokens, _ = tokenizer(frames, labels, train=False)
        return encoder.trace(tokens).states, encoder(tokens)

    states, last = run(tokenizer, encoder)
    for level, state in enumerate(states):
        assert_golden(state, hf[f"vit/out/hidden_{level}"], f"layer {level}")
    assert_golden(last, hf["vit/out/last_hidden_state"], "after the last LayerNorm")
    pooled = np.tanh(
        last[:, 0] @ hf["vit/sd/pooler.dense.weight"].T + hf["vit/sd/pooler.dense.bias"]
    )
    assert_golden(pooled, hf["vit/out/pooler"], "pooler, of the CLS state")


def test_vit_as_transformers_5_names_it(hf):
    state = below(hf, "vit/sd/")
    renamed = {}
    for name, array in state.items():
        for old, new in (
            ("encoder.layer.", "layers."),
            ("attention.attention.query", "attention.q_proj"),
            ("attention.attention.key", "attention.k_proj"),
            ("attention.attention.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ):
            name = name.replace(old, new)
        renamed[f"vit.{name}"] = array
    old = convert(state, choices=heads(hf, "vit"))
    new = convert(renamed, choices=heads(hf, "vit"))
    assert new.report.is_complete
    assert new.layout.prefix == "vit."
    assert old.arrays.keys() == new.arrays.keys()
    for name, array in old.arrays.items():
        np.testing.assert_array_equal(new.arrays[name], array, err_msg=name)
