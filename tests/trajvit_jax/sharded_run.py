"""Ten steps of training on meshes of eight devices, in one process or several.

  python sharded_run.py MESH [MESH ...]      MESH = data,fsdp,tensor[,micro_batches]

Prints a JSON object: the losses by mesh. Devices are virtual: see XLA_FLAGS in test_sharding.py.
"""

from __future__ import annotations

import json
import os
import sys

import jax
import numpy as np

from trajvit_jax.data.augment import AugmentSettings
from trajvit_jax.data.batch import Batch
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
)
from trajvit_jax.models.tokens import Rows
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.pod import cluster
from trajvit_jax.sharding import MeshSettings, make_mesh, put_batch
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings, make_step

STEPS, VIDEOS, GROUP, FRAMES, SIZE, SLOTS = 10, 32, 2, 2, 48, 12
SETTINGS = ModelSettings(
    image_size=32,
    frames=FRAMES,
    projection=16,
    encoder=EncoderSettings(width=32, depth=2, heads=2, mlp=64),
    trajvit=TrajViTSettings(max_trajectories=SLOTS, resnet=ResNetSettings(8, (8, 16), (1, 1))),
    text=TextSettings(vocabulary=64, length=6, positions=6, width=32, depth=1, heads=2, mlp=64),
)


def batch_of(step: int) -> Batch:
    """Random videos, two a row, with as many trajectories as slots allow; some are absent."""
    rng = np.random.default_rng(step)
    groups = VIDEOS // GROUP
    counts = rng.integers(1, SLOTS // 2 - 1, (groups, GROUP))
    video, query = np.zeros((2, groups, 1, SLOTS), np.int32)
    labels = np.zeros((VIDEOS, FRAMES, SIZE, SIZE), np.uint16)
    for group, own in enumerate(counts):
        slot = 0
        for number, count in enumerate(own):
            video[group, 0, slot : slot + 1 + count] = number + 1
            query[group, 0, slot + 1 : slot + 1 + count] = 1
            shape = labels.shape[1:]
            drawn = rng.integers(0, count + 1, shape)
            labels[group * GROUP + number] = np.where(drawn > 0, slot + drawn, 0)
            slot += 1 + count
    ids = rng.integers(1, 64, (VIDEOS, 6)).astype(np.int32)
    return Batch(
        video=rng.integers(0, 256, (VIDEOS, FRAMES, SIZE, SIZE, 3), dtype=np.uint8),
        labels=labels,
        text=ids,
        text_mask=np.ones(ids.shape, bool),
        caption_hash=rng.integers(0, VIDEOS // 2, (VIDEOS, 2)).astype(np.uint32),
        dropped=np.zeros(VIDEOS, np.int32),
        sample=rng.integers(0, 2**32, (VIDEOS, 2), dtype=np.uint32),
        epoch=np.zeros(VIDEOS, np.int32),
        rows=Rows(video, query, np.zeros((groups, GROUP), np.int32)),
        present=rng.random(VIDEOS) > 0.1,
    )


def losses(spec: str) -> list[float]:
    """Of every step on one mesh."""
    data, fsdp, tensor, *micro = map(int, spec.split(","))
    devices = jax.devices()[: data * fsdp * tensor]
    mesh = make_mesh(MeshSettings(data, fsdp, tensor), devices)
    settings = StepSettings(
        micro_batches=micro[0] if micro else 1, loss_block=4, augment=AugmentSettings()
    )
    tx = optimizer(OptimizerSettings(learning_rate=1e-3), STEPS)
    found = []
    with jax.set_mesh(mesh):
        state = TrainState.initialize(SETTINGS, tx, 0, mesh=mesh)
        where = jax.tree.map(lambda x: x.sharding, state)
        step = make_step(tx, settings, SETTINGS, seed=0, where=where)
        share = VIDEOS // jax.process_count()
        own = slice(jax.process_index() * share, (jax.process_index() + 1) * share)
        groups = slice(own.start // GROUP, own.stop // GROUP)
        for number in range(STEPS):
            batch = batch_of(number)
            rows = jax.tree.map(lambda x: x[groups], batch.rows)
            batch = jax.tree.map(lambda x: x[own], batch.replace(rows=None)).replace(rows=rows)
            state, measures = step(state, put_batch(batch, mesh))
            found.append(float(measures["loss"]))
        assert step._cache_size() == 1, "compiled again"
    return found


if __name__ == "__main__":
    own = cluster.from_environment(os.environ)
    cluster.start(own)
    jax.config.update("jax_disable_most_optimizations", True)
    with jax.default_matmul_precision("highest"):
        results = {spec: losses(spec) for spec in sys.argv[1:]}
    print(json.dumps(results))
    cluster.stop(own)
