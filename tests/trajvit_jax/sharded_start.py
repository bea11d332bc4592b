"""New states on meshes of eight devices, beside the one on a single device.

  python sharded_start.py MESH [MESH ...]      MESH = data,fsdp,tensor

Prints a JSON object, by mesh: see `facts`. Devices are virtual: see XLA_FLAGS in
test_sharded_start.py.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np

from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
)
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.sharding import MeshSettings, make_mesh
from trajvit_jax.state import TrainState

# Wide enough that what is too small to divide hardly counts.
_LAYERS: dict[str, Any] = {"width": 256, "depth": 3, "heads": 8, "mlp": 1024}
SETTINGS = ModelSettings(
    image_size=32,
    frames=2,
    projection=64,
    encoder=EncoderSettings(**_LAYERS),
    trajvit=TrajViTSettings(max_trajectories=12, resnet=ResNetSettings(8, (8, 16), (1, 1))),
    text=TextSettings(vocabulary=4096, length=6, positions=6, **_LAYERS),
)
SEED = 3


LARGE = 2**19  # numbers; the shape of so large an array is no part's of another


def facts(mesh: str, alone: TrainState) -> dict[str, Any]:
    """What is asked of the initializer of a mesh, and of what it made.

    Returns:
      off: by name, the largest difference to an array of one device, where there is any.
      where: by name, the axes of the mesh that divide an array.
      held: bytes of the fullest device's parts of all arrays, as a share of all bytes.
      planned: bytes of the results and of all that is in between on each device, by the compiler,
        likewise.
      uncut: names of large divided arrays whose whole shape the compiled program has anywhere.
    """
    data, fsdp, tensor = map(int, mesh.split(","))
    devices, tx = make_mesh(MeshSettings(data, fsdp, tensor)), optimizer(OptimizerSettings(), 10)
    make = TrainState.initializer(SETTINGS, tx, SEED, mesh=devices, averaged=True)
    compiled = make.lower().compile()
    memory, text = compiled.memory_analysis(), compiled.as_text()
    state, others = by_name(compiled()), by_name(alone)
    held = dict.fromkeys(jax.devices(), 0)
    for x in state.values():
        for shard in x.addressable_shards:
            held[shard.device] += shard.data.nbytes
    whole = sum(x.nbytes for x in state.values())
    divided = {name: x for name, x in state.items() if not x.is_fully_replicated}
    off = {name: np.abs(np.asarray(x) - np.asarray(others[name])) for name, x in state.items()}
    return {
        "off": {name: float(values.max()) for name, values in off.items() if values.any()},
        "where": {name: list(x.sharding.spec) for name, x in divided.items()},
        "held": max(held.values()) / whole,
        "planned": (memory.output_size_in_bytes + memory.temp_size_in_bytes) / whole,
        "uncut": [
            name
            for name, x in divided.items()
            if x.size >= LARGE and f"[{','.join(map(str, x.shape))}]" in text
        ],
    }


def by_name(state: TrainState) -> dict[str, jax.Array]:
    """Every array with its path."""
    leaves = jax.tree.leaves_with_path(state)
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in leaves}


if __name__ == "__main__":
    one = TrainState.initialize(SETTINGS, optimizer(OptimizerSettings(), 10), SEED, averaged=True)
    print(json.dumps({mesh: facts(mesh, one) for mesh in sys.argv[1:]}))
