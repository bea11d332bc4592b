"""What a video costs, whatever else is in its batch, and on whatever devices."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tokenization.trajectories import compact
from trajvit_jax.data import evaluation
from trajvit_jax.data.unusable import UnusableRecord
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.scaling import costs_of

# Of eight videos, on as many virtual devices as the process has.
_ON_DEVICES = """
import json, sys
import jax
from trajvit_jax.data.source import open_records
from trajvit_jax.evals.command import on_all_devices
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.scaling import costs_of
jax.config.update("jax_disable_most_optimizations", True)
workdir, records = sys.argv[1:]
with on_all_devices() as mesh:
    embedder = Embedder(load(workdir, mesh=mesh).model, batch=8, mesh=mesh)
    print(json.dumps(costs_of(embedder, open_records(records, "test"))))
"""


@pytest.fixture
def bad_record(monkeypatch):
    """From now on this record cannot be used."""
    read = evaluation.read_record

    def broken(bad, source, number):
        if number == bad:
            raise UnusableRecord("damaged")
        return read(source, number)

    return lambda number: monkeypatch.setattr(
        evaluation, "read_record", functools.partial(broken, number)
    )


@pytest.mark.parametrize("name", ["trajvit", "rlt", "vit3d"])
def test_a_bad_record_in_the_batch_counts_for_nothing(
    tiny, random_model, toy_record, bad_record, name
):
    embedder = Embedder(random_model(tiny(name)), batch=4)
    source = [toy_record(0)] * 10  # more than a tenth would be an error
    whole = costs_of(embedder, source)
    bad_record(1)
    found = costs_of(embedder, source)
    for cost in ("tokens", "gflop", "memory_mib"):
        assert found[cost] == whole[cost], cost


def test_a_batch_of_bad_records_is_passed_over(tiny, random_model, toy_record, bad_record):
    embedder = Embedder(random_model(tiny("vit3d")), batch=1)
    bad_record(0)
    found = costs_of(embedder, [toy_record(number) for number in range(10)])
    assert found["tokens"] == 9


@pytest.fixture
def uneven(toy_record):
    """Videos of 2, 3, 4 and 6 trajectories; in the last nothing changes."""

    def make(number, more):
        record = toy_record(number)
        labels = record.trajectories.labels.copy()
        labels[:, :4, : 4 * more] = 3 + np.repeat(np.arange(more), 4)
        frames = np.repeat(record.frames[:1], 4, 0) if number == 3 else record.frames
        labels = compact(labels).astype(np.uint16)
        trajectories = dataclasses.replace(record.trajectories, labels=labels)
        return dataclasses.replace(record, trajectories=trajectories, frames=frames)

    return [make(number, more) for number, more in enumerate((0, 1, 2, 4))]


@pytest.mark.parametrize("name", ["trajvit", "rlt"])
def test_costs_are_those_of_all_videos_whatever_the_batch(tiny, random_model, uneven, name):
    model = random_model(tiny(name))
    of = [costs_of(Embedder(model, batch=1), [record]) for record in uneven]
    expected = {cost: np.mean([one[cost] for one in of]) for cost in ("tokens", "gflop")}
    assert len({one["tokens"] for one in of}) > 1
    if name == "trajvit":
        assert expected["tokens"] == 1 + (2 + 3 + 4 + 6) / 4
    for batch, source in ((2, uneven), (2, uneven[::-1]), (4, uneven)):
        found = costs_of(Embedder(model, batch=batch), source)
        for cost, value in expected.items():
            assert found[cost] == pytest.approx(value, rel=1e-12), (cost, batch)


@pytest.mark.parametrize("name", ["vit3d"])
def test_memory_is_that_of_a_video_on_several_devices_too(runs, toy_records, name):
    """Half of the batch's videos take half of its memory; what all share is little."""
    found = []
    for devices in (1, 2):
        flags = f"--xla_force_host_platform_device_count={devices}"
        done = subprocess.run(
            [sys.executable, "-c", _ON_DEVICES, str(runs(name)), str(toy_records)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found.append(json.loads(done.stdout.splitlines()[-1]))
    one, two = found
    assert two["tokens"] == one["tokens"] and two["gflop"] == one["gflop"]
    assert two["memory_mib"] == pytest.approx(one["memory_mib"], rel=0.25)
