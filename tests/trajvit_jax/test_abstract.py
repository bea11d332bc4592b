"""Shapes made of settings are those of real batches, and noise has them too."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from benchmarks.parts.random_batch import random_batch
from trajvit_jax.data.abstract import abstract_batch
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import Stream
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.run.throughput import work_of

PACKED = StreamSettings(
    frames=4, batch=4, sources=(SourceSettings("toys"),), packing=PackingSettings(2, 1, 9)
)
PLAIN = dataclasses.replace(PACKED, packing=None)


def shapes(batch: Batch) -> Batch:
    return jax.tree.map(lambda x: (x.shape, np.dtype(x.dtype)), batch)


@pytest.mark.parametrize("stream", [PACKED, PLAIN])
@pytest.mark.parametrize("resize", [True, False])
def test_a_batch_of_the_loader_has_these_shapes(stream, resize, tiny, toy_record):
    model = tiny()
    records = [toy_record(i) for i in range(8)]
    text = WordPiece.train(
        {caption for record in records for caption in record.captions}, model.text.length
    )
    opened = [Stream(stream, (records,))]
    loaded = next(train_steps(opened, model, text, seed=0, resize=resize))
    stored = None if resize else records[0].frames.shape[1]
    assert shapes(abstract_batch(stream, model, stored=stored)) == shapes(loaded.batch)


@pytest.mark.parametrize("stream", [PACKED, PLAIN])
@pytest.mark.parametrize("stored", [None, 40])
def test_noise_has_the_shapes_and_its_labels_their_slots(stream, stored, tiny):
    model = tiny()
    batch = random_batch(stream, model, stored=stored)
    assert shapes(abstract_batch(stream, model, stored=stored)) == shapes(batch)
    assert batch.labels.max() > 1
    if batch.rows is None:
        assert batch.labels.max() <= model.trajvit.max_trajectories
        return
    for video, labels in enumerate(batch.labels):
        group, place = divmod(video, 2)
        used = np.unique(labels[labels > 0])
        row = batch.rows.row[group, place]
        assert (batch.rows.video[group, row, used] == place + 1).all()
        assert (batch.rows.query[group, row, used] == 1).all()


def test_patches_have_no_rows(tiny):
    assert abstract_batch(PACKED, tiny("vit3d")).rows is None


def test_work_grows_with_the_batch_and_counts_slots(tiny):
    model = tiny()
    small = work_of(PACKED, model)
    large = work_of(dataclasses.replace(PACKED, batch=12), model)
    assert (small.videos, small.slots) == (4, 18) and (large.videos, large.slots) == (12, 54)
    assert large.flops == 3 * small.flops > 0
    assert work_of(PLAIN, model).slots == 4 * (1 + model.trajvit.max_trajectories)
    patches = tiny("vit3d")
    assert work_of(PACKED, patches).slots == work_of(PLAIN, patches).slots == 4 * (1 + 2 * 2 * 2)
    # Up to what captions share: their positions are read once a batch.
    assert work_of(PACKED, patches).flops == pytest.approx(work_of(PLAIN, patches).flops, rel=1e-3)


def test_a_run_that_may_not_use_cpus_trains_without_a_count(tiny, monkeypatch, caplog):
    def none(*, backend):
        raise RuntimeError(f"Unknown backend {backend}")

    monkeypatch.setattr(jax, "local_devices", none)
    work = work_of(PACKED, tiny())
    assert np.isnan(work.flops) and work.videos == 4
    assert "utilization is not told" in caplog.text and "JAX_PLATFORMS=cuda,cpu" in caplog.text
