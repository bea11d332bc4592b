"""Embeddings, frozen tokens, those of boxes, clips and views of records, on all devices of all
processes.

  python sharded_evaluation.py WORKDIR RECORDS OUTPUT [EMBEDDINGS]

Process 0 writes OUTPUT.npz, and every process prints the metrics of its own embeddings and those of
EMBEDDINGS, an OUTPUT.npz of another run. Devices are virtual: see XLA_FLAGS in test_sharded.py.
"""

from __future__ import annotations

import json
import os
import sys

import jax
import numpy as np
from flax import nnx

from trajvit_jax.data.source import open_records
from trajvit_jax.evals import temporal_clips
from trajvit_jax.evals.classification import classify, own_label
from trajvit_jax.evals.command import on_all_devices
from trajvit_jax.evals.detection import box_features
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.features import frozen_tokens
from trajvit_jax.evals.loaded import load, with_frames
from trajvit_jax.evals.probing import HeadSettings, score_samples, train_head
from trajvit_jax.evals.protocol import as_read
from trajvit_jax.evals.retrieval import Gallery, embed_pairs, measure
from trajvit_jax.pod import cluster


def main(workdir: str, records: str, output: str, given: str = "") -> None:
    """Evaluates, writes and prints."""
    with on_all_devices() as mesh, jax.default_matmul_precision("highest"):
        loaded = load(workdir, mesh=mesh)
        embedder = Embedder(loaded.model, batch=8, mesh=mesh)
        source = open_records(records, "test")
        gallery = embed_pairs(embedder, source, loaded.words())
        frozen = frozen_tokens(embedder, source, own_label)
        # A head is trained on one device, whatever mesh there is.
        targets = np.arange(len(source)) % 2
        head = train_head(frozen.features, targets, 2, HeadSettings(epochs=2, size=4, heads=2))
        scores = score_samples(head, frozen.features, size=4)
        boxes = box_features(embedder, source).tokens
        clips = temporal_clips.measure(embedder, source, loaded.words())
        halves = Embedder(with_frames(loaded.model, 2), batch=8, mesh=mesh)
        views = classify(halves, as_read(source, 2, views=2), loaded.words(), views=2)
    found = {
        "videos": gallery.videos,
        "texts": gallery.texts,
        "pairs": gallery.pairs,
        "tokens": frozen.features.values,
        "starts": frozen.features.starts,
        "scores": scores,
        "box_tokens": boxes.values,
        "box_starts": boxes.starts,
        "clips": np.array([value for _, value in clips.values()]),
        "classified": views.scores,
    }
    if jax.process_index() == 0:
        np.savez(output, **found)
    told = {
        "devices": jax.device_count(),
        "holding": min(
            len(x.sharding.device_set) for x in jax.tree.leaves(nnx.state(loaded.model))
        ),
        "hash": loaded.checkpoint,
        "own": dict(measure(gallery).values()),
    }
    if given:
        with np.load(given, allow_pickle=False) as file:
            other = Gallery(file["videos"], file["texts"], file["pairs"], gallery.captions)
        told["given"] = dict(measure(other).values())
    print(json.dumps(told))


if __name__ == "__main__":
    own = cluster.from_environment(os.environ)
    cluster.start(own)
    jax.config.update("jax_disable_most_optimizations", True)
    main(*sys.argv[1:])
    cluster.stop(own)
