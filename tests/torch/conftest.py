"""PyTorch as the oracle: its modules at random weights, their weights in ours, and comparison."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

Arrays = dict[str, np.ndarray]

_REMEDY = "is not installed; `make sam2` installs it"
# How PyTorch lays out a weight -> how Flax does, by its number of axes.
_LAYOUTS = {1: ("scale", (0,)), 2: ("kernel", (1, 0)), 4: ("kernel", (2, 3, 1, 0))}
_SAME_LAYOUT = {"bias": "bias", "running_mean": "mean", "running_var": "var"}


@pytest.fixture(scope="session", autouse=True)
def quick_compilation() -> None:
    """Compiles without optimizations: these programs run once."""
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True)
def full_precision() -> Iterator[None]:
    """Accelerators multiply float32 matrices with fewer bits unless told not to."""
    with jax.default_matmul_precision("highest"):
        yield


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, imported when the first test needs it: collecting must not."""
    return pytest.importorskip("torch", reason=f"torch {_REMEDY}")


@pytest.fixture(scope="session")
def transformers(torch: ModuleType) -> ModuleType:
    """Hugging Face's models, offline; they import torchvision where it is installed."""
    from tokenization import torchvision_shim

    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    torchvision_shim.make_importable()
    return pytest.importorskip("transformers", reason=f"transformers {_REMEDY}")


@pytest.fixture(scope="session")
def close(assert_golden: Callable[..., None]) -> Callable[..., None]:
    """Compares an array with a tensor, or a dictionary of arrays with one of the same names."""

    def check(actual: Any, expected: Any, name: str = "") -> None:
        if isinstance(expected, Mapping):
            assert actual.keys() == expected.keys()
            for key in expected:
                check(actual[key], expected[key], key)
            return
        expected = expected.detach().numpy() if hasattr(expected, "detach") else expected
        assert_golden(actual, expected, name)

    return check


@pytest.fixture(scope="session")
def randomize(torch: ModuleType) -> Callable[[Any], Any]:
    """Fills all weights and statistics: zeros and ones would hide what goes where."""

    def fill(model: Any) -> Any:
        generator = torch.Generator().manual_seed(0)
        for tensor in model.state_dict().values():
            if tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.uniform_(0.5, 1.5, generator=generator)
        return model.eval()

    return fill


@pytest.fixture(scope="session")
def respond(torch: ModuleType) -> Callable[[Any, int], Any]:
    """Fills all weights as `randomize` does, but biases around 0: what is deep inside matters."""

    def fill(model: Any, seed: int) -> Any:
        generator = torch.Generator().manual_seed(seed)
        for name, tensor in model.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            elif name.endswith(("weight", "gamma", "scale")):
                tensor.uniform_(0.5, 1.5, generator=generator)
            elif tensor.is_floating_point():
                tensor.normal_(0, 0.1, generator=generator)
        return model.eval()

    return fill


@pytest.fixture(scope="session")
def gradients_of() -> Callable[[Any], dict[str, Any]]:
    """Gradients of a torch module by name; parameters that no result came from have none."""

    def gather(model: Any) -> dict[str, Any]:
        return {n: weight.grad for n, weight in model.named_parameters() if weight.grad is not None}

    return gather


@pytest.fixture(scope="session")
def renamed() -> Callable[[Mapping[str, Any], Mapping[str, str]], Arrays]:
    """Weights or gradients of torch modules under the names and in the layouts of Flax's.

    The map tells module from module, {"encoder.fc1": "mlp_in"}; what it leaves out is dropped.
    """

    def rename(tensors: Mapping[str, Any], modules: Mapping[str, str]) -> Arrays:
        arrays = {}
        for name, tensor in tensors.items():
            module, _, leaf = name.rpartition(".")
            array = tensor.detach().numpy()
            if module not in modules or leaf == "num_batches_tracked":
                continue
            if leaf == "weight":
                leaf, axes = _LAYOUTS[array.ndim]
                array = array.transpose(axes)
            else:
                leaf = _SAME_LAYOUT[leaf]
            # A copy: torch changes its statistics in place.
            arrays[f"{modules[module]}.{leaf}"] = array.copy()
        return arrays

    return rename


@pytest.fixture(scope="session")
def stacked() -> Callable[[Arrays, int], Arrays]:
    """'0.query.kernel', '0.key.kernel', ..., '1.mlp_out.bias' as one stack of our layers."""

    def stack(arrays: Arrays, depth: int) -> Arrays:
        layers = []
        for index in range(depth):
            prefix = f"{index}."
            layer = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
            for leaf in ("kernel", "bias"):
                parts = [layer.pop(f"{part}.{leaf}") for part in ("query", "key", "value")]
                layer[f"query_key_value.{leaf}"] = np.stack(parts, -2)
            layers.append(layer)
        return {f"layers.{k}": np.stack([layer[k] for layer in layers]) for k in layers[0]}

    return stack


@pytest.fixture(scope="session")
def flat() -> Callable[[nnx.State], Arrays]:
    """A state as {"dotted.path": array}."""

    def flatten(state: nnx.State) -> Arrays:
        return {
            ".".join(map(str, path)): np.asarray(leaf) for path, leaf in nnx.to_flat_state(state)
        }

    return flatten


@pytest.fixture(scope="session")
def built() -> Callable[[Callable[[], nnx.Module], Arrays], nnx.Module]:
    """Makes a module of exactly these arrays: no name may lack or be left over."""

    def build(make: Callable[[], nnx.Module], arrays: Arrays) -> nnx.Module:
        graph, state = nnx.split(nnx.eval_shape(make))
        leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in nnx.to_flat_state(state)}
        assert leaves.keys() == arrays.keys()
        for name, (_, leaf) in leaves.items():
            assert leaf.shape == arrays[name].shape, name
        filled = [
            (path, leaf.replace(jnp.asarray(arrays[n]))) for n, (path, leaf) in leaves.items()
        ]
        return nnx.merge(graph, nnx.from_flat_state(filled))

    return build


@pytest.fixture(scope="module")
def one_thread(torch):
    """Threads that wait for each other are slow on busy cores, and these sizes need none."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
