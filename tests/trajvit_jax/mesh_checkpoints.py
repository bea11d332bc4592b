"""Saves or restores a sharded state, in one of several processes.

  python mesh_checkpoints.py save|restore WORKDIR DATA,FSDP,TENSOR [ADDRESS PROCESSES PROCESS]

Prints, as JSON, the step that was restored and a checksum of every array.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.experimental import multihost_utils

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.run.checksums import checksums
from trajvit_jax.sharding import MeshSettings, make_mesh, shardings
from trajvit_jax.state import TrainState


def state_of(step: int) -> TrainState:
    """Two arrays that a mesh divides, and small ones."""
    key = jax.random.key(step)
    params = nnx.State(
        {
            "mlp_in": {"kernel": nnx.Param(jax.random.normal(key, (256, 512)))},
            "scale": nnx.Param(jnp.full(7, step, jnp.float32)),
        }
    )
    opt_state = optax.adam(1.0).init(params)
    return TrainState(jnp.int32(step), params, nnx.State({}), opt_state, None, graph=None)


def main(task: str, workdir: str, mesh: str, *cluster: str) -> None:
    """Steps 1 and 2 are saved; the newest that can be read is restored."""
    if cluster:
        address, processes, process = cluster
        jax.distributed.initialize(address, int(processes), int(process))
    data, fsdp, tensor = map(int, mesh.split(","))
    devices = make_mesh(MeshSettings(data, fsdp, tensor))
    shapes = jax.eval_shape(lambda: state_of(0))
    where = shardings(shapes, devices)
    with Checkpoints(workdir) as checkpoints:
        if task == "save":
            for step in (1, 2):
                state = jax.jit(state_of, static_argnums=0, out_shardings=where)(step)
                checkpoints.save(step, state)
            found = checksums(state.arrays())
        else:
            like = jax.tree.map(
                lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, where
            )
            restored = checkpoints.resume(like)
            assert restored is not None
            step, state = restored.step, restored.state
            assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, state, where))
            found = checksums(state.arrays())
    if cluster:
        multihost_utils.sync_global_devices("end")
    print(json.dumps({"step": step, "checksums": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
