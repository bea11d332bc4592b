"""Checkpoints come back as they were written, and no file runs code or passes for another."""

from __future__ import annotations

import io
import json
import pickle
import re
import sys
import zipfile

import hypothesis.extra.numpy as hnp
import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.traps import Trap
from trajvit_jax.convert import nesting
from trajvit_jax.convert.contents import CheckpointError
from trajvit_jax.convert.files import read_checkpoint, read_state_dict, write_state_dict

SUFFIXES = (".safetensors", ".npz", ".pt", ".pth", ".bin")
WRITTEN = SUFFIXES[:2]
BITS = [np.dtype(name) for name in ("u1", "u2", "i2", "i4", "i8", "u8", "f2", "f4", "f8", "?")]


@pytest.fixture
def trap(tmp_path):
    """A trap, once shown to work; after the test it must not have been sprung."""
    sprung = tmp_path / "sprung"
    trap = Trap(sprung)
    pickle.loads(pickle.dumps(trap))
    sprung.unlink()
    yield trap
    assert not sprung.exists()


def arrays_of(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "encoder.layer.0.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "encoder.layer.0.bias": rng.normal(size=4).astype(ml_dtypes.bfloat16),
        "steps": np.array(7, np.int64),
    }


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert actual[name].dtype == array.dtype.newbyteorder("="), name
        assert actual[name].shape == array.shape, name
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        assert actual[name].tobytes() == native.tobytes(), name


@st.composite
def some_arrays(draw):
    """An array of any dtype, number of axes (0 too), size (0 too) and order in memory."""
    dtype = draw(st.sampled_from(BITS))
    array = draw(hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0)))
    if dtype == np.uint16 and draw(st.booleans()):
        array = array.view(ml_dtypes.bfloat16)
    elif draw(st.booleans()):
        array = array.astype(dtype.newbyteorder(">"))
    return array.T if draw(st.booleans()) else array


names = st.text(min_size=1, max_size=12).filter(str.isprintable) | st.sampled_from(
    ["file", "a", "a.npy", "a/b", "encoder.layer.0.weight", "模型.weight", "allow_pickle"]
)


@given(arrays=st.dictionaries(names, some_arrays(), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("suffix", WRITTEN)
def test_round_trip(tmp_path_factory, suffix, arrays):
    assume("__metadata__" not in arrays and not nesting.unwrap(arrays)[1])
    path = tmp_path_factory.mktemp("round") / f"weights{suffix}"
    write_state_dict(path, arrays)
    assert_same(read_state_dict(path), arrays)
    assert [item.name for item in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", WRITTEN)
def test_the_same_arrays_give_the_same_bytes(tmp_path, suffix):
    for name in "ab":
        write_state_dict(tmp_path / f"{name}{suffix}", arrays_of())
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_npz_is_what_numpy_reads_and_writes(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.array(3)}
    write_state_dict(tmp_path / "ours.npz", arrays)
    with np.load(tmp_path / "ours.npz", allow_pickle=False) as file:
        assert_same(dict(file), arrays)
    arrays["c"] = np.array([1.5, -2], ml_dtypes.bfloat16)
    np.savez_compressed(tmp_path / "theirs.npz", **arrays, comment=np.array("a text"))
    theirs = read_checkpoint(tmp_path / "theirs.npz")
    assert_same(theirs.arrays, arrays)
    assert theirs.skipped == ("comment",)


def test_safetensors_name_their_framework(tmp_path):
    """Without it, transformers refuses the file."""
    write_state_dict(tmp_path / "model.safetensors", arrays_of())
    with safetensors.safe_open(tmp_path / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("suffix", WRITTEN)
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"weights{suffix}"
    write_state_dict(path, arrays_of(1))
    real = np.lib.format.write_array
    save_file = safetensors.numpy.save_file

    def interrupted(*args, **kwargs):
        (save_file if suffix == ".safetensors" else real)(*args, **kwargs)
        raise KeyboardInterrupt

    monkeypatch.setattr(np.lib.format, "write_array", interrupted)
    monkeypatch.setattr(safetensors.numpy, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_state_dict(path, arrays_of(2))
    assert [item.name for item in tmp_path.iterdir()] == [path.name]
    assert_same(read_state_dict(path), arrays_of(1))


@pytest.mark.parametrize(
    ("name", "arrays", "message"),
    [
        ("x.pt", {"a": np.zeros(2)}, r"can write \.safetensors and \.npz, not '\.pt'"),
        ("x.npz", {}, "no arrays"),
        ("x.npz", {"a\nb": np.zeros(2)}, "cannot be called"),
        ("x.safetensors", {"__metadata__": np.zeros(2)}, "cannot be called"),
        ("x.npz", {"a": np.zeros(2, object)}, "array 'a' is object; cast it"),
        ("x.safetensors", {"a": np.zeros(2, ml_dtypes.float8_e5m2)}, "float8_e5m2; cast it"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, name, arrays, message):
    with pytest.raises(ValueError, match=message):
        write_state_dict(tmp_path / "new" / name, arrays)
    assert not (tmp_path / "new").exists()


class TestShards:
    @pytest.fixture
    def index(self, tmp_path):
        """Writes the arrays into two shards; returns the path of the index and what it says."""
        arrays = arrays_of()
        shards = {}
        for i, name in enumerate(arrays):
            shards.setdefault(f"model-{i % 2 + 1}-of-2.safetensors", {})[name] = arrays[name]
        for shard, part in shards.items():
            write_state_dict(tmp_path / shard, part)
        where = {name: shard for shard, part in shards.items() for name in part}
        path = tmp_path / "model.safetensors.index.json"
        path.write_text(json.dumps({"metadata": {"total_size": 9}, "weight_map": where}))
        return path, where

    def rewrite(self, path, **changes):
        where = json.loads(path.read_text())["weight_map"]
        path.write_text(json.dumps({"weight_map": where | changes}))

    def test_are_read_as_one(self, index):
        path, _ = index
        assert_same(read_state_dict(path), arrays_of())

    def test_missing(self, index):
        path, where = index
        (path.parent / where["steps"]).unlink()
        with pytest.raises(FileNotFoundError, match=f"{re.escape(str(path))}.*{where['steps']}"):
            read_state_dict(path)

    def test_without_the_array_they_should_hold(self, index):
        path, where = index
        self.rewrite(path, other=where["steps"])
        with pytest.raises(CheckpointError, match=r"'other' is in model-1-of-2.*lacks it"):
            read_state_dict(path)

    @pytest.mark.parametrize("shard", ["../x.safetensors", "/etc/x.safetensors", "..", "", 3])
    def test_outside_the_folder(self, index, shard):
        path, _ = index
        (path.parent.parent / "x.safetensors").write_bytes(b"")
        self.rewrite(path, steps=shard)
        with pytest.raises(CheckpointError, match="no file beside it"):
            read_state_dict(path)

    @pytest.mark.parametrize(
        "text",
        ["", "{", "[]", "{}", '{"weight_map": 3}', "\xff", pytest.param("[" * 10**5, id="deep")],
    )
    def test_of_a_damaged_index(self, tmp_path, text):
        path = tmp_path / "model.safetensors.index.json"
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} is no index"):
            read_state_dict(path)

    def test_that_are_pickles(self, tmp_path, trap):
        (tmp_path / "part.bin").write_bytes(pickle.dumps({"a": trap}))
        path = tmp_path / "pytorch_model.bin.index.json"
        path.write_text(json.dumps({"weight_map": {"a": "part.bin"}}))
        with pytest.raises(CheckpointError, match=f"^{tmp_path / 'part.bin'} is a Python pickle"):
            read_state_dict(path)


class TestCodeInFiles:
    @pytest.mark.parametrize("suffix", SUFFIXES)
    @pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
    def test_pickle_is_not_opened(self, tmp_path, trap, suffix, protocol):
        path = tmp_path / f"model{suffix}"
        path.write_bytes(pickle.dumps({"model": trap}, protocol))
        with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
            read_state_dict(path)
        if protocol >= 2:  # older ones carry no mark
            assert "Python pickle" in str(caught.value)
            assert "save its arrays with safetensors" in str(caught.value)

    def test_objects_in_npz_are_not_loaded(self, tmp_path, trap):
        path = tmp_path / "model.npz"
        np.savez(path, fine=np.zeros(2), model=np.array([trap], object))
        with pytest.raises(CheckpointError, match=r"model\.npz holds Python objects \(array 'mod"):
            read_state_dict(path)

    def test_pickle_in_npz_is_not_opened(self, tmp_path, trap):
        path = tmp_path / "model.npz"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.npy", pickle.dumps(trap))
        with pytest.raises(CheckpointError, match=r"model\.npz is damaged"):
            read_state_dict(path)


def content(suffix):
    """Bytes of a small file of a format."""
    stream = io.BytesIO()
    if suffix == ".npz":
        np.savez(stream, **arrays_of())
    elif suffix == ".npy":
        np.save(stream, np.zeros(3))
    else:
        stream.write(safetensors.numpy.save(arrays_of()))
    return stream.getvalue()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty (0 bytes); download"),
        (b"hello world, a page of text\n" * 99, "is text, no checkpoint"),
        ("ü" * 999, "is text, no checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (bytes(range(256)), "is damaged, or of a format that is not known"),
        (b"PK\3\4 no zip after all", "is damaged, or of a format that is not known"),
        (content(".npy"), "is damaged, or of a format that is not known"),
    ],
    ids=["empty", "text", "utf-8", "lfs", "bytes", "zip", "npy"],
)
def test_no_checkpoint(tmp_path, suffix, data, message):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    with pytest.raises(CheckpointError, match=re.escape(f"{path} {message}"[:40])) as caught:
        read_state_dict(path)
    assert message in str(caught.value)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".ckpt", ""])
@pytest.mark.parametrize("real", WRITTEN)
def test_a_wrong_name_says_the_right_one(tmp_path, suffix, real):
    if suffix == real:
        return
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content(real))
    with pytest.raises(CheckpointError, match=re.escape(str(path))) as caught:
        read_state_dict(path)
    assert f"name it *{real}" in str(caught.value)


@pytest.mark.parametrize("suffix", WRITTEN)
def test_truncated_anywhere(tmp_path, suffix):
    data = content(suffix)
    path = tmp_path / f"model{suffix}"
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_state_dict(path)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_changed_byte_raises_no_other_error(tmp_path_factory, suffix, data):
    whole = bytearray(content(suffix))
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / f"model{suffix}"
    path.write_bytes(whole)
    try:
        read_state_dict(path)
    except CheckpointError as error:
        assert str(path) in str(error)


def test_numbers_that_numpy_lacks(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"\0\0")
    with pytest.raises(CheckpointError, match=r"numbers that NumPy lacks .*float8_e4m3"):
        read_state_dict(path)
    np.savez(tmp_path / "model.npz", a=np.zeros(2, ml_dtypes.float8_e4m3fn))
    with pytest.raises(CheckpointError, match=r"raw bytes \(array 'a', \|V1\)"):
        read_state_dict(tmp_path / "model.npz")


def test_a_missing_file_names_the_nearest(tmp_path):
    write_state_dict(tmp_path / "trajvit_base.npz", arrays_of())
    (tmp_path / "trajvit_base.txt").touch()
    with pytest.raises(FileNotFoundError, match=r"no file .*did you mean 'trajvit_base\.npz'"):
        read_state_dict(tmp_path / "trajvit_bse.npz")
    with pytest.raises(CheckpointError, match=r"is a folder; .*trajvit_base\.npz"):
        read_state_dict(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere"):
        read_state_dict(tmp_path / "nowhere" / "x.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no checkpoint in that folder"):
        read_state_dict(tmp_path / "empty" / "x.npz")


def test_without_torch_the_error_says_what_helps(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # makes its import fail, installed or not
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
    with pytest.raises(ImportError, match=r"model\.pt is a PyTorch file.*pip install torch"):
        read_state_dict(path)


def test_a_checkpoint_tells_how_it_was_read(tmp_path):
    path = tmp_path / "model.npz"
    arrays = {f"module.{name}": array for name, array in arrays_of().items()}
    np.savez(path, **arrays, note=np.array("a text"))
    assert read_checkpoint(path).lines() == [
        f"{path}: 3 arrays of 17 numbers (1 float32, 1 bfloat16, 1 int64)",
        "  prefix 'module.' removed from every name",
        "  not tensors, skipped: 1 values (note)",
    ]
