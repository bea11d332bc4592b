"""Three updates of a connector and adapters on meshes of virtual devices.

  python sharded_talks.py FOLDER MESH [MESH ...]      MESH = data,fsdp,tensor

FOLDER holds the language model. Prints a JSON object: the losses by mesh, and how the weights lie.
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from trajvit_jax.llm import hugging_face, parts
from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.lora import LoraSettings
from trajvit_jax.llm.model import VideoLLMSettings
from trajvit_jax.llm.sequences import TEXT, Sequences
from trajvit_jax.llm.step import Talks, make_step
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    TrajViTSettings,
)
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.sharding import MeshSettings, make_mesh, put_batch, shardings
from trajvit_jax.state import TrainState

GROUPS, SLOTS, LENGTH, STEPS = 8, 6, 24, 3
VIDEO = ModelSettings(
    image_size=32,
    frames=2,
    encoder=EncoderSettings(width=32, depth=2, heads=2, mlp=64),
    trajvit=TrajViTSettings(max_trajectories=SLOTS, resnet=ResNetSettings(8, (8, 16), (1, 1))),
)


def talks() -> Talks:
    """Random clips, two conversations a group in one row."""
    rng = np.random.default_rng(0)
    b = 2 * GROUPS
    ids = rng.integers(1, 96, (GROUPS, LENGTH)).astype(np.int32)
    source = np.full((GROUPS, LENGTH), TEXT, np.int32)
    source[:, 1:5], source[:, 13:17] = np.arange(4), np.arange(7, 11)
    segment = np.repeat([1, 2], LENGTH // 2)[None].repeat(GROUPS, 0).astype(np.int32)
    target = (np.arange(LENGTH) % (LENGTH // 2) >= 8)[None].repeat(GROUPS, 0)
    return Talks(
        video=rng.integers(0, 256, (b, 2, 32, 32, 3), dtype=np.uint8),
        labels=rng.integers(0, SLOTS + 1, (b, 2, 8, 8)).astype(np.int32),
        sequences=Sequences(ids, source, segment, target),
        dropped=np.zeros(b, np.int32),
        present=np.ones(b, bool),
        unplaced=np.zeros(b, bool),
    )


def losses(folder: str, spec: str) -> tuple[list[float], str]:
    """Of every step on one mesh, and where a large matrix lies."""
    shape = tuple(map(int, spec.split(",")))
    mesh = make_mesh(MeshSettings(*shape), jax.devices()[: int(np.prod(shape))])
    lora = LoraSettings(rank=2, alpha=4.0)
    llm = hugging_face.read_settings(folder, dtype="float32", remat="layers", lora=lora)
    settings = VideoLLMSettings(VIDEO, EyesSettings(), llm)
    with jax.set_mesh(mesh):
        model = parts.make(settings, None, folder, mesh=mesh, seed=0)
        graph, params, frozen = nnx.split(model, parts.is_trained(("connector", "lora")), ...)
        tx = optimizer(OptimizerSettings(learning_rate=1e-2), STEPS)
        opt_state = tx.init(params)
        opt_state = jax.device_put(opt_state, shardings(opt_state, mesh))
        zero = jax.device_put(jnp.zeros((), jnp.int32), shardings(jnp.zeros(()), mesh))
        state = TrainState(zero, params, nnx.State({}), opt_state, None, graph)
        where = jax.tree.map(lambda x: x.sharding, state)
        step = make_step(tx, group=2, where=where)
        found, batch = [], put_batch(talks(), mesh)
        for _ in range(STEPS):
            state, measures = step(state, frozen, batch)
            found.append(float(measures["loss"]))
    return found, str(model.llm.layers.gate.kernel[...].sharding.spec)


if __name__ == "__main__":
    print(json.dumps({spec: losses(sys.argv[1], spec) for spec in sys.argv[2:]}))
