"""The folder of one checkpoint: reading it, and what can be wrong with it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from tokenization.files import write_text
from trajvit_jax.run.checksums import named

STATE, RUN = "state", "run"
_LATER = "later.json"

# What the system says where something that should be there is not: damage.
_MISSING = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_MISSING_CODES = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
_STATUS = re.compile(r"([A-Z_]+): ")
_SYSTEM_ERROR = re.compile(r"os_error_code='(\d+)'")
# The other codes of a read that fails (DATA_LOSS, NOT_FOUND, ..) tell of the file's contents.
_NO_PROOF = frozenset(
    {
        *("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "PERMISSION_DENIED"),
        *("RESOURCE_EXHAUSTED", "UNAUTHENTICATED", "UNAVAILABLE", "UNKNOWN"),
    }
)


def read_run(folder: Path) -> dict[str, Any]:
    """What a checkpoint holds besides arrays: `clock`, `metrics` (later ones, too), `checksums`.

    Raises:
      OSError: no such file.
      ValueError: a file that is no JSON, or not this one.
    """
    run = json.loads((folder / RUN / "metadata").read_text("utf-8"))
    if not isinstance(run, dict) or not run.keys() >= {"clock", "metrics", "checksums"}:
        raise ValueError(f"{folder / RUN} lacks clock, metrics or checksums")
    with contextlib.suppress(FileNotFoundError, ValueError):
        run["metrics"] = json.loads((folder / _LATER).read_text("utf-8"))
    return run


def write_later(folder: Path, metrics: Mapping[str, float]) -> None:
    """Notes metrics that were measured after the checkpoint was written, in place of its own."""
    write_text(folder / _LATER, json.dumps(dict(metrics)) + "\n")


def load_arrays(workdir: str | os.PathLike[str], step: int | None = None) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by their dotted names, without a model.

    Args:
      workdir: of the run.
      step: of the checkpoint; None = the newest.

    Raises:
      FileNotFoundError: no such checkpoint.
    """
    directory = Path(workdir).absolute() / "checkpoints"
    steps = [int(path.name) for path in directory.glob("*") if path.name.isdecimal()]
    if not steps or (step is not None and step not in steps):
        raise FileNotFoundError(f"no checkpoint {'' if step is None else step} in {directory}")
    folder = directory / str(max(steps) if step is None else step)
    shapes = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), saved_shapes(folder))
    return {name: np.asarray(x) for name, x in named(read_arrays(folder, shapes)).items()}


def saved_shapes(folder: Path) -> Any:
    """Shapes and types of what a checkpoint holds."""
    return ocp.StandardCheckpointHandler().metadata(folder / STATE).tree


def read_arrays(folder: Path, wanted: Any) -> Any:
    """Reads this process's parts, alone: what fails here keeps no other process waiting.

    Args:
      folder: of the checkpoint.
      wanted: shapes with shardings, or NumPy arrays for NumPy arrays.

    Raises:
      Exception: of any kind, if it cannot be read; orbax and tensorstore have none of their own.
    """
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"read{me}"
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
        return reader.restore(folder / STATE, args=ocp.args.StandardRestore(wanted))


def shape_of(x: Any) -> jax.ShapeDtypeStruct:
    """Shape, type and place of an array, or of a shape; by default the first device."""
    where = getattr(x, "sharding", None)
    if where is None:
        where = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)


def first_misfit(saved: Any, wanted: Any) -> str:
    """The first array whose shape or type differs or that only one side has; '' if none."""
    there, here = (
        {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in named(tree).items()}
        for tree in (saved, wanted)
    )
    for name in sorted(there.keys() | here.keys()):
        if there.get(name) != here.get(name):
            return f"{name}: {there.get(name, 'nothing')} there, {here.get(name, 'nothing')} here"
    return ""


def is_of_the_machine(error: BaseException | None) -> bool:
    """Whether a failure says nothing about the files: memory, rights, a disk, a network."""
    while error is not None:
        if isinstance(error, (MemoryError, jax.errors.JaxRuntimeError)):
            return True
        if isinstance(error, OSError) and not isinstance(error, _MISSING):
            return True
        # TensorStore tells all of its failures as ValueError, with Abseil's code in front.
        if match := _STATUS.match(str(error)):
            if match[1] in _NO_PROOF:
                return True
            system = _SYSTEM_ERROR.search(str(error))
            if system is not None and int(system[1]) not in _MISSING_CODES:
                return True
        error = error.__cause__ or error.__context__
    return False


def in_a_line(error: BaseException) -> str:
    """The end of the chain of causes, short."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:200]}"
