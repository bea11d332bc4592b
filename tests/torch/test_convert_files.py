"""PyTorch checkpoints are read as PyTorch reads them, and the code in them is not run."""

from __future__ import annotations

import argparse
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

from tests.traps import Trap
from trajvit_jax.convert.contents import CheckpointError
from trajvit_jax.convert.files import read_checkpoint, read_state_dict, write_state_dict

pytestmark = pytest.mark.torch

FLOATS = ("float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "complex64")
INTEGERS = ("int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64", "bool")


class SystemTrap(Trap):
    """The classic: it runs a shell."""

    def __reduce__(self):
        import os

        return (os.system, (f"touch {self.path}",))


class CustomDict(dict):
    """A state dict of a class that PyTorch's loader does not know."""


@pytest.fixture(params=[Trap, SystemTrap])
def trap(request, tmp_path):
    """A trap, once shown to work; after the test it must not have been sprung."""
    sprung = tmp_path / "sprung"
    trap = request.param(sprung)
    pickle.loads(pickle.dumps(trap))
    sprung.unlink()
    yield trap
    assert not sprung.exists()


@pytest.fixture(params=[True, False], ids=["zip", "before 1.6"])
def is_zip(request):
    """Which of PyTorch's two formats `save` writes."""
    return request.param


@pytest.fixture
def save(torch, is_zip):
    """`torch.save`."""
    return lambda tree, path: torch.save(tree, path, _use_new_zipfile_serialization=is_zip)


@pytest.fixture
def tensors(torch):
    """Tensors of every dtype, of several shapes and orders in memory."""
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name in FLOATS + INTEGERS:
        numbers = torch.randint(0, 2, (2, 3), generator=generator) * 0.75
        tensors[name] = numbers.to(getattr(torch, name))
    number = torch.randn(6, 4, generator=generator)
    return tensors | {
        "transposed": number.T,
        "sliced": number[1:5:2, ::3],
        "scalar": torch.tensor(1.5, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(number.clone()),
        "turned": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    }


def assert_same(torch, arrays, tensors):
    assert arrays.keys() == tensors.keys()
    for name, tensor in tensors.items():
        array = arrays[name]
        assert array.dtype.name == str(tensor.dtype).removeprefix("torch.")
        assert array.shape == tuple(tensor.shape), name
        bits = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
        assert array.tobytes() == bits.tobytes(), name


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
def test_tensors_keep_their_bits(torch, tmp_path, save, is_zip, tensors, suffix):
    if not is_zip:  # the old format came before these types
        for name in ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"):
            del tensors[name]
    save(tensors, tmp_path / f"model{suffix}")
    assert_same(torch, read_state_dict(tmp_path / f"model{suffix}"), tensors)


def test_safetensors_of_torch_are_read_and_ours_by_torch(torch, tmp_path, tensors):
    import safetensors.torch

    kept = {
        name: tensor.detach().contiguous()
        for name, tensor in tensors.items()
        if "8_e" not in name and not tensor.is_complex()
    }
    safetensors.torch.save_file(kept, tmp_path / "theirs.safetensors")
    arrays = read_state_dict(tmp_path / "theirs.safetensors")
    assert_same(torch, arrays, kept)
    assert arrays["bfloat16"].dtype == ml_dtypes.bfloat16

    write_state_dict(tmp_path / "ours.safetensors", arrays)
    assert_same(torch, arrays, safetensors.torch.load_file(tmp_path / "ours.safetensors"))
    # Turned arrays lie in another order in memory than they are written in.
    write_state_dict(tmp_path / "turned.safetensors", {n: a.T for n, a in arrays.items()})
    turned = safetensors.torch.load_file(tmp_path / "turned.safetensors")
    assert torch.equal(turned["transposed"], kept["transposed"].permute(1, 0))


def test_transformers_load_what_we_wrote(torch, transformers, tmp_path):
    config = transformers.BertConfig(
        vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    model = transformers.BertModel(config)
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    arrays = read_state_dict(file)
    file.unlink()
    write_state_dict(file, {name: array + 1 for name, array in arrays.items()})
    loaded = transformers.BertModel.from_pretrained(tmp_path).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor + 1), name


def test_a_training_checkpoint(torch, tmp_path, save):
    """As a distributed training program leaves it: only the model's tensors come back."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(5, 3)).sum().backward()
    optimizer.step()
    state = model.state_dict()
    save(
        {
            "optimizer": optimizer.state_dict(),
            "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
            "model": {f"module.{name}": tensor for name, tensor in state.items()},
            "epoch": 3,
            "args": argparse.Namespace(lr=1e-4, name="trajvit"),
            "config": {"model": {"width": 768}},
        },
        tmp_path / "ckpt.pth",
    )
    checkpoint = read_checkpoint(tmp_path / "ckpt.pth")
    assert_same(torch, checkpoint.arrays, state)
    assert (checkpoint.place, checkpoint.prefix) == ("model", "module.")
    assert checkpoint.elsewhere == {"optimizer": 12}  # steps and two moments of four parameters
    assert {"epoch", "args", "config/model/width"} < set(checkpoint.skipped)
    text = "\n".join(checkpoint.lines())
    assert "found at 'model'" in text and "12 tensors at 'optimizer'" in text
    optimizer_state = read_checkpoint(tmp_path / "ckpt.pth", place="optimizer/state/0").arrays
    assert optimizer_state.keys() == {"step", "exp_avg", "exp_avg_sq"}


def test_tied_weights(torch, tmp_path, save):
    """Tied weights are two names of one tensor, in the file as well."""
    weight = torch.randn(3, 4)
    save({"a": weight, "b": weight}, tmp_path / "tied.pt")
    arrays = read_state_dict(tmp_path / "tied.pt")
    np.testing.assert_array_equal(arrays["a"], weight.numpy())
    np.testing.assert_array_equal(arrays["b"], weight.numpy())


class TestCodeInFiles:
    @pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin"])
    @pytest.mark.parametrize("where", ["beside", "instead", "as key"])
    def test_is_not_run(self, torch, tmp_path, save, trap, suffix, where):
        model = {"w": torch.zeros(2)}
        tree = {
            "beside": {"model": model, "config": trap},
            "instead": trap,
            "as key": {"model": model, (trap,): 1},
        }[where]
        path = tmp_path / f"model{suffix}"
        save(tree, path)
        with pytest.raises(ValueError, match=re.escape(f"{path} holds code")) as caught:
            read_state_dict(path)
        assert re.search(r"its tensors \((\w+\.system|getattr)\), which is not", str(caught.value))

    def test_is_not_run_whatever_the_environment(self, torch, tmp_path, save, trap, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        save({"model": trap}, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match="holds code"):
            read_state_dict(tmp_path / "model.pt")

    def test_in_an_options_object_is_not_run(self, torch, tmp_path, save, trap):
        """Namespace is the one class let in; what it holds is judged like all else."""
        options = argparse.Namespace(run=trap)
        save({"model": {"w": torch.zeros(2)}, "args": options}, tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match="holds code"):
            read_state_dict(tmp_path / "model.pt")

    @pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
    def test_of_a_renamed_file_is_not_run(self, torch, tmp_path, save, trap, suffix):
        path = tmp_path / f"model{suffix}"
        save({"model": trap}, path)
        with pytest.raises(CheckpointError, match=r"is a PyTorch file; name it \*\.pt"):
            read_state_dict(path)

    def follow(self, torch, folder, error):
        """Runs the command that a message gives for a trusted file, and reads what it wrote."""
        import safetensors.torch

        assert "Only if you trust whoever made the file" in str(error)
        command = str(error).partition("read those: ")[2]
        command = command.replace("'model.", f"'{folder}/model.")
        exec(command, {"torch": torch, "safetensors": safetensors})
        return read_state_dict(folder / "model.safetensors")

    @pytest.mark.parametrize("nested", [True, False])
    def test_the_remedy_works(self, torch, tmp_path, save, nested):
        weights = torch.randn(3, 4)
        model = {"w": weights.T}
        save(
            {"model": model, "best": np.float64(3)} if nested else CustomDict(model),
            tmp_path / "model.pt",
        )
        with pytest.raises(CheckpointError, match=r"holds code") as caught:
            read_state_dict(tmp_path / "model.pt")
        arrays = self.follow(torch, tmp_path, caught.value)
        np.testing.assert_array_equal(arrays["w"], weights.T.numpy())

    def test_a_whole_module_is_refused(self, torch, tmp_path, save):
        save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
        with pytest.raises(
            CheckpointError, match=r"holds code .*torch\.nn\.modules\.linear"
        ) as caught:
            read_state_dict(tmp_path / "model.pt")
        assert self.follow(torch, tmp_path, caught.value).keys() == {"weight", "bias"}

    def test_a_program_is_refused(self, torch, tmp_path):
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "model.pt")
        with pytest.raises(CheckpointError, match=r"holds code .*TorchScript") as caught:
            read_state_dict(tmp_path / "model.pt")
        assert self.follow(torch, tmp_path, caught.value).keys() == {"weight", "bias"}

    def test_an_old_loader_is_not_used(self, torch, tmp_path, save, monkeypatch):
        save({"w": torch.zeros(2)}, tmp_path / "model.pt")
        assert read_state_dict(tmp_path / "model.pt").keys() == {"w"}
        monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
        with pytest.raises(ImportError, match=r"2\.9\.1\+cpu .*was not opened.*torch>=2\.10"):
            read_state_dict(tmp_path / "model.pt")


def test_truncated_anywhere(torch, tmp_path, save):
    path = tmp_path / "model.pt"
    save({"model": {"w": torch.zeros(3), "v": torch.ones(2)}}, path)
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            read_state_dict(path)


@pytest.mark.filterwarnings("ignore::UserWarning")  # sparse and quantized tensors are beta
def test_tensors_without_plain_numbers(torch, tmp_path, save):
    odd = {
        "sparse": torch.eye(2).to_sparse(),
        "quantized": torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        "meta": torch.zeros(2, device="meta"),
    }
    for name, tensor in odd.items():
        save({"model": {name: tensor}}, tmp_path / f"{name}.pt")
        with pytest.raises(CheckpointError, match=rf"{name}\.pt holds '{name}' .*no plain ten"):
            read_state_dict(tmp_path / f"{name}.pt")


@pytest.mark.parametrize("tree", [3, [], {"epoch": 3}, None])
def test_no_tensors(tmp_path, save, tree):
    save(tree, tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"model\.pt holds "):
        read_state_dict(tmp_path / "model.pt")
