"""What a video costs, whatever else is in its batch, and on whatever devices."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys

import pytest

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
    source = [toy_record(0)] * 3
    whole = costs_of(embedder, source)
    bad_record(1)
    found = costs_of(embedder, source)
    for cost in ("tokens", "gflop", "memory_mib"):
        assert found[cost] == whole[cost], cost


def test_a_batch_of_bad_records_is_passed_over(tiny, random_model, toy_record, bad_record):
    embedder = Embedder(random_model(tiny("vit3d")), batch=1)
    bad_record(0)
    found = costs_of(embedder, [toy_record(0), toy_record(1)])
    assert found["tokens"] == 9


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
