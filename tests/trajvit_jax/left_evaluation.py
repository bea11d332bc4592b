"""An evaluation in several processes, which one of them wants to leave; all do, at one place.

  python left_evaluation.py retrieval|head [ADDRESS PROCESSES PROCESS]

Prints after how many batches this process left retrieval, or after how many steps the training of a
head, which each process has on one device of its own; and a number of the first process.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils

from tokenization.records import Record
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals import retrieval
from trajvit_jax.evals.probing import HeadSettings, train_head
from trajvit_jax.evals.token_store import Features
from trajvit_jax.models.settings import EncoderSettings, ModelSettings, TextSettings, ViT3DSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.pod.agreement import Agreement, numbers_of_first_process
from trajvit_jax.run.interrupts import StopRequest
from trajvit_jax.sharding import MeshSettings, make_mesh

WIDTHS = {"width": 16, "depth": 1, "heads": 1, "mlp": 16}
SETTINGS = ModelSettings(
    name="vit3d",
    image_size=16,
    frames=2,
    projection=8,
    encoder=EncoderSettings(**WIDTHS),
    vit3d=ViT3DSettings(patch=16, tubelet=2),
    text=TextSettings(vocabulary=32, length=6, positions=6, **WIDTHS),
)
BATCH, BATCHES, WANTS = 4, 6, 2  # process 1 wants to leave after the second batch


def record(i: int) -> Record:
    """Noise under one trajectory."""
    rng = np.random.default_rng(i)
    trajectories = Trajectories(
        np.ones((2, 16, 16), np.uint16),
        np.arange(2, dtype=np.float32),
        np.array([True, False]),
        VideoInfo(f"clip{i}", 16, 16, 1.0, 2.0),
    )
    pixels = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    return Record(trajectories, pixels, (f"clip {i}",))


def learn(between: Callable[[], None]) -> None:
    """Trains a head on noise."""
    values = np.random.default_rng(0).normal(size=(BATCH * BATCHES, 8)).astype(np.float32)
    features = Features(values, np.arange(BATCH * BATCHES + 1))
    targets = np.arange(BATCH * BATCHES) % 2
    train_head(features, targets, 2, HeadSettings(epochs=1, size=BATCH, heads=2), between=between)


def main(what: str, *cluster: str) -> None:
    """Evaluates until all leave."""
    if cluster:
        address, processes, process = cluster
        jax.distributed.initialize(address, int(processes), int(process))
    mesh, seen = make_mesh(MeshSettings()), 0
    agreement, stop = Agreement(mesh), StopRequest()

    def between() -> None:
        nonlocal seen
        seen += 1
        if agreement.ask(seen >= WANTS and jax.process_index() == jax.process_count() - 1):
            raise stop.error("")

    text = WordPiece.train(["clip 0123456789"], 6)
    with jax.set_mesh(mesh):
        model = nnx.jit(lambda: VideoTextModel(SETTINGS, rngs=nnx.Rngs(0)))()
        source = [record(i) for i in range(BATCH * BATCHES)]
        try:
            if what == "head":
                learn(between)
            dict(retrieval.evaluate(model, source, text, batch=BATCH, mesh=mesh, between=between))
        except KeyboardInterrupt:
            agreed = numbers_of_first_process({"third": 1 / 3 + jax.process_index()})
            print(json.dumps({"left after": seen} | agreed))
        if cluster:
            multihost_utils.sync_global_devices("end")


if __name__ == "__main__":
    main(*sys.argv[1:])
