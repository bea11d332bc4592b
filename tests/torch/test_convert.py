"""PyTorch files and real transformers models through the command: equal outputs."""

from __future__ import annotations

from operator import attrgetter

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.array_names import below
from trajvit_jax.convert.__main__ import main
from trajvit_jax.convert.conversion import abstract_model
from trajvit_jax.convert.files import read_state_dict
from trajvit_jax.convert.pieces import fill
from trajvit_jax.convert.stored import read_folder

pytestmark = pytest.mark.torch

SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


@pytest.fixture
def converted(tmp_path):
    """Runs the command; the parts of the model that are named, with what it wrote."""

    def convert(source, *parts):
        folder = tmp_path / "converted"
        assert main([f"--from={source}", f"--to={folder}", "--heads=2"]) == 0
        stored = read_folder(folder)
        model = abstract_model(stored.settings)
        return [fill(attrgetter(part)(model), below(stored.arrays, f"{part}.")) for part in parts]

    return convert


def saved(model, folder):
    """What `save_pretrained` writes."""
    model.save_pretrained(folder)
    return folder / "model.safetensors"


def test_bert(torch, transformers, randomize, converted, close, tmp_path):
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **SIZES)
    theirs = randomize(transformers.BertModel(config))
    (encoder,) = converted(saved(theirs, tmp_path / "bert"), "text")
    ids = np.random.default_rng(0).integers(0, 50, (2, 9))
    expected = theirs(torch.tensor(ids)).last_hidden_state
    ids = jnp.asarray(ids, jnp.int32)
    close(nnx.jit(type(encoder).__call__)(encoder, ids, jnp.ones(ids.shape, bool)), expected)


def test_vit(torch, transformers, randomize, converted, close, tmp_path):
    config = transformers.ViTConfig(image_size=16, patch_size=8, **SIZES)
    theirs = randomize(transformers.ViTModel(config, add_pooling_layer=False))
    source = saved(theirs, tmp_path / "vit")
    tokenizer, encoder = converted(source, "tokenizer", "encoder")
    frames = np.random.default_rng(0).normal(size=(2, 1, 16, 16, 3)).astype(np.float32)
    expected = theirs(torch.tensor(frames[:, 0]).permute(0, 3, 1, 2)).last_hidden_state
    labels = jnp.zeros((2, 1, 1, 1), jnp.int32)
    tokens, _ = tokenizer(jnp.asarray(frames), labels, train=False)
    close(nnx.jit(type(encoder).__call__)(encoder, tokens), expected)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_resnet(torch, transformers, randomize, converted, close, tmp_path, kind):
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type=kind
    )
    theirs = randomize(transformers.ResNetModel(config))
    source = saved(theirs, tmp_path / "resnet")
    (resnet,) = converted(source, "tokenizer.appearance.backbone")
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    channels_first = torch.tensor(images).permute(0, 3, 1, 2).contiguous()
    expected = theirs(channels_first).last_hidden_state.permute(0, 2, 3, 1)
    run = nnx.jit(lambda model, images: model(images, train=False)[-1])
    close(run(resnet, jnp.asarray(images)), expected)


def test_a_training_checkpoint(torch, transformers, randomize, converted, tmp_path):
    """A .pt file with an optimizer beside the model, wrapped for several GPUs, in bfloat16."""
    config = transformers.BertConfig(vocab_size=50, max_position_embeddings=16, **SIZES)
    theirs = randomize(transformers.BertModel(config, add_pooling_layer=False))
    source = tmp_path / "checkpoint.pt"
    model = {f"module.{n}": t.to(torch.bfloat16) for n, t in theirs.state_dict().items()}
    optimizer = torch.optim.AdamW(theirs.parameters())
    torch.save({"model": model, "optimizer": optimizer.state_dict(), "epoch": 3}, source)
    (encoder,) = converted(source, "text")
    expected = model["module.embeddings.word_embeddings.weight"].float().numpy()
    np.testing.assert_array_equal(encoder.word.embedding[...], expected)

    back = tmp_path / "back.safetensors"
    assert main(["--back", f"--from={tmp_path / 'converted'}", f"--to={back}"]) == 0
    state = {n: torch.tensor(array) for n, array in read_state_dict(back).items()}
    assert theirs.load_state_dict(state, strict=False).missing_keys == []


def test_a_model_that_is_a_program_is_refused(torch, tmp_path, capsys):
    source = tmp_path / "whole.pt"
    torch.save({"model": torch.nn.Linear(2, 2)}, source)
    assert main([f"--from={source}", f"--to={tmp_path / 'converted'}"]) == 2
    assert "holds code beside its tensors" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["whole.pt"]
