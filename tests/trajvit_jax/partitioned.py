"""What four devices add up in a training step, in the program as XLA partitions it.

  python partitioned.py MODEL        a name of a tokenization

Prints a JSON list of all sums over devices: the result's type, and where they come from. The step
is that of `sharded_run`, in bfloat16. Devices are virtual, see XLA_FLAGS in the test.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import tempfile
from pathlib import Path

import jax
from sharded_run import SETTINGS, batch_of

from trajvit_jax.data.augment import AugmentSettings
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.sharding import MeshSettings, make_mesh, of_batch
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings, make_step

SUM = re.compile(r"= (\S+|\(.*?\)) (?:all-reduce|reduce-scatter)(?:-start)?\(")
NAME = re.compile(r'op_name="([^"]*)"')


def sums(program: str) -> list[dict[str, str]]:
    """All of them, of a module's text."""
    found = []
    for line in program.splitlines():
        if match := SUM.search(line):
            name = NAME.search(line)
            found.append({"result": match[1], "name": name[1] if name else ""})
    return found


def partitioned(name: str) -> str:
    """The program's text between partitioning and compilation."""
    settings = dataclasses.replace(SETTINGS, name=name, dtype="bfloat16")
    mesh = make_mesh(MeshSettings(data=2, fsdp=2))
    tx = optimizer(OptimizerSettings(), 10)
    batch = batch_of(0)
    if name != "trajvit":
        batch = batch.replace(rows=None)
    with jax.set_mesh(mesh), tempfile.TemporaryDirectory() as folder:
        state = TrainState.shapes(settings, tx, mesh=mesh)
        where = jax.tree.map(lambda x: x.sharding, state)
        step = make_step(tx, StepSettings(augment=AugmentSettings()), settings, seed=0, where=where)
        shapes = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=of_batch(mesh)), batch
        )
        dump = {"xla_dump_to": folder, "xla_dump_hlo_pass_re": "spmd-partitioning"}
        step.lower(state, shapes).compile(compiler_options=dump)
        [path] = Path(folder).glob("*jit_step*after_spmd-partitioning*")
        return path.read_text("utf-8")


if __name__ == "__main__":
    jax.config.update("jax_disable_most_optimizations", True)
    print(json.dumps(sums(partitioned(sys.argv[1]))))
