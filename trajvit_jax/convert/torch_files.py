"""PyTorch files, by `torch.load(weights_only=True)` alone: nothing in a file is ever run."""

from __future__ import annotations

import argparse
import re
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from trajvit_jax.convert.contents import CheckpointError

# Before this release a crafted file could run code in spite of weights_only: advisories
# GHSA-53q9-r3pm-6pq6 (fixed in 2.6) and GHSA-63cw-57p8-fm3p (fixed in 2.10) of pytorch/pytorch.
SAFE_SINCE = (2, 10)

# How PyTorch names what a file asks it to import, or that it holds a whole program.
_REFUSED = re.compile(r"\bGLOBAL (?P<name>[\w.]+)|\b(?P<program>TorchScript)\b")


def load(path: Path) -> Any:
    """What the file holds, its tensors on the CPU; options saved as argparse.Namespace too.

    Raises:
      ImportError: no PyTorch, or one whose loader is not safe.
      CheckpointError: a file that is damaged, or that holds more than numbers, text and
        containers, which only running its code could restore.
    """
    torch = _torch(path)
    try:
        # A warning of how a file was written changes nothing: it is read or refused.
        with (
            warnings.catch_warnings(action="ignore"),
            # A plain bag of values, which many training programs save beside their model.
            torch.serialization.safe_globals([argparse.Namespace]),
        ):
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # at damaged files it raises whatever its parser ran into
        raise CheckpointError(f"{path} {_problem(error, path)}") from error


def to_numpy(tensor: Any, name: str) -> np.ndarray:
    """The tensor's numbers in C order; bfloat16 and 8-bit floats, which NumPy lacks, of ml_dtypes.

    Raises:
      CheckpointError: a tensor without plain numbers (sparse, quantized, on the meta device); the
        message lacks the file's name.
    """
    import torch

    dtype = getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."), None)
    try:
        if dtype is None:
            return tensor.contiguous().numpy(force=True)
        bits = torch.int16 if tensor.element_size() == 2 else torch.uint8
        return tensor.detach().contiguous().view(bits).numpy(force=True).view(dtype)
    except (TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"holds {name!r} ({tensor.dtype}, {tensor.layout}, on {tensor.device}) is no plain "
            "tensor; save it dense and dequantized"
        ) from error


def _problem(error: Exception, path: Path) -> str:
    if refused := _REFUSED.search(str(error)):
        program = refused["program"]
        load = (
            f"model = torch.jit.load({path.name!r}).state_dict()"
            if program
            else f"model = torch.load({path.name!r}, weights_only=False); model = "
            "model.state_dict() if hasattr(model, 'state_dict') else model.get('model', model)"
        )
        return (
            f"holds code beside its tensors ({program or refused['name']}), which is not run. "
            "Only if you trust whoever made the file, as this runs that code, save the tensors "
            f"alone and read those: {load}; "
            "safetensors.torch.save_file({k: v.contiguous() for k, v in model.items()}, "
            f"{path.with_suffix('.safetensors').name!r})"
        )
    reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
    return f"is damaged ({type(error).__name__}: {reason}); download it again"


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"{path} is a PyTorch file, and PyTorch is not installed: pip install "
            "torch --index-url https://download.pytorch.org/whl/cpu, or `make sam2`; or convert "
            "the file to .safetensors where PyTorch is, and read that"
        ) from error
    version = tuple(int(part) for part in re.findall(r"\d+", torch.__version__)[:2])
    if version < SAFE_SINCE:
        raise ImportError(
            f"PyTorch {torch.__version__} is installed, whose loader a crafted file can make run "
            f"code, so {path} was not opened: pip install --upgrade 'torch>="
            f"{'.'.join(map(str, SAFE_SINCE))}'"
        )
    return torch
