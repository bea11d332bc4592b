"""What a run trained, for use: its parameters out of a checkpoint, without the optimizer's state.

That state is two numbers a parameter, and the parameters that a step changes are float32: of a
language model of 8B more than one device has. So arrays are read one by one, each put into the
dtype in which it is used before the next is read.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax import nnx

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.run.checkpoint_files import (
    STATE,
    in_a_line,
    is_of_the_machine,
    read_run,
    saved_shapes,
)
from trajvit_jax.run.checksums import checksums, named
from trajvit_jax.run.whole_files import find_damage

_LOG = logging.getLogger(__name__)


def read_params(workdir: Path, like: nnx.State) -> nnx.State:
    """The parameters of the newest checkpoint that can be read.

    Args:
      workdir: of the run.
      like: shapes with shardings, in the dtypes in which the arrays are used.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: checkpoints of another model, or none that can be read.
      OSError: memory or storage fails, which is no proof of damage.
    """
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps
    if not steps:
        raise FileNotFoundError(f"{workdir} has no checkpoint; train first")
    for step in reversed(steps):
        folder = workdir.absolute() / "checkpoints" / str(step)
        try:
            reason = find_damage(folder)
            if not reason:
                _check_shapes(folder, like)
                return _read(folder, like)
        except _MisfitError:
            raise
        except Exception as error:  # orbax and tensorstore have none of their own
            if is_of_the_machine(error):
                raise OSError(
                    f"{folder} cannot be read now: {in_a_line(error)}; it may be whole"
                ) from error
            reason = in_a_line(error)
        _LOG.warning("checkpoint %s cannot be read (%s): taking the one before", folder, reason)
    raise ValueError(f"no checkpoint in {workdir} can be read: {reason}")


class _MisfitError(ValueError):
    """The checkpoint is of another model."""


def _check_shapes(folder: Path, like: nnx.State) -> None:
    there = named(saved_shapes(folder)["params"])
    here = named(nnx.to_pure_dict(like))
    for name in sorted(there.keys() | here.keys()):
        own, other = (f"{list(x[name].shape)}" if name in x else "nothing" for x in (there, here))
        if own != other:
            raise _MisfitError(
                f"{folder} does not fit the model of its settings (params.{name}: {own} there, "
                f"{other} here)"
            )


def _read(folder: Path, like: nnx.State) -> nnx.State:
    types, noted = named(saved_shapes(folder)["params"]), read_run(folder)["checksums"]

    def read(path: tuple[Any, ...], wanted: jax.ShapeDtypeStruct) -> jax.Array:
        short = jax.tree_util.keystr(path, simple=True, separator=".")
        name = f"params.{short}"
        shape = jax.ShapeDtypeStruct(wanted.shape, types[short].dtype, sharding=wanted.sharding)
        one: Any = shape
        for key in reversed(path):
            one = {key.key: one}
        (array,) = jax.tree.leaves(read_some(folder, {"params": one}))
        if checksums({name: array}) != {name: noted[name]}:
            raise ValueError(f"values of {name} are not those that were saved")
        return jax.block_until_ready(array.astype(wanted.dtype))

    arrays = jax.tree_util.tree_map_with_path(read, nnx.to_pure_dict(like))
    return jax.tree.unflatten(jax.tree.structure(like), jax.tree.leaves(arrays))


def read_some(folder: Path, wanted: Any) -> Any:
    """Of a checkpoint's arrays only those that `wanted` has shapes of."""
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        own = ocp.checkpoint_utils.construct_restore_args(wanted)
        args = ocp.args.PyTreeRestore(wanted, restore_args=own, partial_restore=True)
        return reader.restore(folder / STATE, args=args)
