"""Weights in shards: read, placed, written, and what is told when they do not fit."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx

from trajvit_jax.convert.contents import CheckpointError
from trajvit_jax.convert.pieces import paths
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.settings import LLAMAS, from_hugging_face, to_hugging_face
from trajvit_jax.llm.tensors import INDEX, ONE, Tensors, write_tensors
from trajvit_jax.sharding import MeshSettings, make_mesh

SHARDS = {"shard_bytes": 60_000}


@pytest.fixture
def folder(written, golden_settings):
    """A golden model as Hugging Face keeps it, in several files."""
    folder = written("llama", **SHARDS)
    config = to_hugging_face(golden_settings["llama"])
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_files_are_those_of_the_library(folder, golden):
    """Each shard is read by safetensors itself, and the index names where everything is."""
    index = json.loads((folder / INDEX).read_text())
    assert len(set(index["weight_map"].values())) > 3
    for name, file in index["weight_map"].items():
        found = safetensors.numpy.load_file(folder / file)[name]
        np.testing.assert_array_equal(found, golden("hf_tiny")[f"llama/sd/{name}"])
    size = sum(array.nbytes for array in Tensors(folder).values())
    assert index["metadata"]["total_size"] == size


def test_reading_maps_and_copies_nothing(folder):
    for array in Tensors(folder).values():
        base = array
        while not isinstance(base, np.memmap) and base.base is not None:
            base = base.base
        assert isinstance(base, np.memmap)
        assert not array.flags.writeable


def test_both_ways(folder, tmp_path):
    """Loaded and written, every tensor comes back as it was."""
    model = hugging_face.load(folder, dtype="float32")
    hugging_face.save(model, tmp_path / "out", **SHARDS)
    before, after = Tensors(folder), Tensors(tmp_path / "out")
    assert set(before) == set(after)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array)
    again = hugging_face.read_settings(tmp_path / "out", dtype="float32")
    assert again == model.settings


def test_both_ways_in_bfloat16(folder, tmp_path):
    """What is stored in bfloat16 is written in bfloat16, and is the same when it comes back."""
    model = hugging_face.load(folder, stored="bfloat16")
    hugging_face.save(model, tmp_path)
    assert (tmp_path / ONE).is_file()
    again = hugging_face.load(tmp_path, stored="bfloat16")
    for one, other in zip(*map(jax.tree.leaves, map(nnx.state, (model, again))), strict=True):
        assert one.dtype == jnp.bfloat16
        np.testing.assert_array_equal(one, other)


class TestUsedFolder:
    def test_of_more_files(self, folder):
        """What is written in one file is read, not the index that lies there from before."""
        model = hugging_face.load(folder, dtype="float32")
        model.norm.scale[...] += 1
        hugging_face.save(model, folder)
        again = hugging_face.load(folder, dtype="float32")
        np.testing.assert_array_equal(again.norm.scale[...], model.norm.scale[...])

    @pytest.mark.parametrize("before", [{}, SHARDS])
    def test_writing_that_is_cut_off_leaves_no_mixture(self, tmp_path, before):
        arrays = {str(i): np.full(20_000, i, np.float32) for i in range(4)}
        shapes = {name: (array.shape, array.dtype) for name, array in arrays.items()}
        write_tensors(tmp_path, shapes, arrays.__getitem__, **before)

        def some(name):
            if name == "3":
                raise KeyboardInterrupt
            return arrays[name] + 10

        with pytest.raises(KeyboardInterrupt):
            write_tensors(tmp_path, shapes, some, **SHARDS)
        with pytest.raises(FileNotFoundError, match="holds neither"):
            Tensors(tmp_path)

    def test_a_save_that_is_cut_off_leaves_no_config(self, folder, monkeypatch):
        """Which would be of the weights that were there before."""

        def stop(*args, **options):
            raise KeyboardInterrupt

        model = hugging_face.load(folder)
        monkeypatch.setattr(hugging_face, "write_tensors", stop)
        with pytest.raises(KeyboardInterrupt):
            hugging_face.save(model, folder)
        with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
            hugging_face.load(folder)


def test_on_a_mesh_of_one_device(folder):
    """By the rules of the mesh, and the same numbers."""
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    plain, placed = hugging_face.load(folder), hugging_face.load(folder, mesh)
    for name, array in paths(placed).items():
        assert array.sharding.mesh.shape == mesh.shape
        np.testing.assert_array_equal(array, paths(plain)[name])


def test_tied_models_have_no_head(golden_settings, written):
    settings = dataclasses.replace(golden_settings["llama"], tied=True)
    model = hugging_face.fill(hugging_face.abstract(settings), Tensors(written("llama")))
    assert model.head is None
    logits = model.logits(jnp.eye(64))
    np.testing.assert_allclose(logits, model.table.embedding[...].T, rtol=1e-6)


@pytest.mark.parametrize("name", LLAMAS)
def test_published_sizes_and_config(name):
    """Parameter counts as published, and settings that survive config.json."""
    settings = LLAMAS[name]
    published = {
        "llama3_8b": 8_030_261_248,
        "llama3_70b": 70_553_706_496,
        "llama3.1_8b": 8_030_261_248,
        "llama3.1_70b": 70_553_706_496,
        "llama3.2_1b": 1_235_814_400,
        "llama3.2_3b": 3_212_749_824,
    }
    assert settings.parameters == published[name]
    assert from_hugging_face(json.loads(json.dumps(to_hugging_face(settings)))) == settings
    small = dataclasses.replace(settings, depth=1, vocabulary=8)
    counted = sum(leaf.size for leaf in jax.tree.leaves(nnx.state(hugging_face.abstract(small))))
    assert counted == small.parameters


def test_config_of_transformers_5():
    """It keeps theta beside the scaling."""
    config = to_hugging_face(LLAMAS["llama3.1_8b"])
    config["rope_parameters"] = config.pop("rope_scaling") | {
        "rope_theta": config.pop("rope_theta")
    }
    assert from_hugging_face(config) == LLAMAS["llama3.1_8b"]


class TestWhatDoesNotFit:
    def test_missing_shard(self, folder):
        gone = sorted(folder.glob("model-*"))[1]
        gone.unlink()
        with pytest.raises(FileNotFoundError, match=f"1 are not beside it .{gone.name}.*download"):
            hugging_face.load(folder)

    def test_no_folder_no_config_no_weights(self, folder, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"config\.json does not exist"):
            hugging_face.load(tmp_path / "nowhere")
        (tmp_path / "config.json").write_text((folder / "config.json").read_text())
        with pytest.raises(FileNotFoundError, match=f"holds neither {ONE} nor"):
            hugging_face.load(tmp_path)

    def test_cut_shard(self, folder):
        shard = sorted(folder.glob("model-*"))[0]
        shard.write_bytes(shard.read_bytes()[:-4])
        with pytest.raises(CheckpointError, match=f"{shard.name} is damaged"):
            hugging_face.load(folder)

    def test_index_that_lies(self, folder):
        index = json.loads((folder / INDEX).read_text())
        name, file = next(iter(index["weight_map"].items()))
        index["weight_map"][name] = next(f for f in index["weight_map"].values() if f != file)
        (folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="which lacks it"):
            hugging_face.load(folder)

    def test_index_that_leads_away(self, folder):
        index = json.loads((folder / INDEX).read_text())
        index["weight_map"][next(iter(index["weight_map"]))] = "../other.safetensors"
        (folder / INDEX).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="no file beside it"):
            hugging_face.load(folder)

    def test_index_of_brackets(self, folder):
        (folder / INDEX).write_text("[" * 10**5)
        with pytest.raises(CheckpointError, match="is no index of a checkpoint"):
            hugging_face.load(folder)

    def test_pickle_by_that_name(self, folder):
        shard = sorted(folder.glob("model-*"))[0]
        shard.write_bytes(b"\x80\x04K\x01.")
        with pytest.raises(CheckpointError, match="pickle, which is not opened"):
            hugging_face.load(folder)

    def test_another_size(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
        with pytest.raises(ValueError, match=r"does not fill the model .6 of the wrong shape"):
            hugging_face.load(folder)

    def test_too_few_layers_in_the_file(self, folder):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
        with pytest.raises(ValueError, match="9 missing"):
            hugging_face.load(folder)

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"model_type": "mistral"}, "model_type is 'mistral'"),
            ({"attention_bias": True}, "attention_bias is True"),
            ({"rope_scaling": {"rope_type": "yarn"}}, "rope_type must be one of default, llama3"),
            ({"hidden_size": None}, "is not of a Llama-3"),
            ({"rope_scaling": "llama3"}, "rotary settings are 'llama3'"),
        ],
    )
    def test_another_architecture(self, folder, change, told):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ValueError, match=told):
            hugging_face.load(folder)

    @pytest.mark.parametrize("content", ["[]", '"llama"', "3"])
    def test_a_config_that_is_no_object(self, folder, content):
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=r"config\.json is not of a Llama-3: it holds a "):
            hugging_face.load(folder)

    def test_writing_needs_something_to_write(self, tmp_path):
        with pytest.raises(ValueError, match="no tensors"):
            write_tensors(tmp_path, {}, lambda name: np.zeros(0))
        with pytest.raises(ValueError, match="complex64, which safetensors lacks"):
            write_tensors(tmp_path, {"a": ((1,), np.dtype(np.complex64))}, lambda _: np.zeros(1))
        assert not list(tmp_path.iterdir())
