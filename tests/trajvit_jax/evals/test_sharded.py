"""An evaluation on eight devices, and in two processes, is that on one."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tokenization.records import Boxes
from tokenization.shards import write_records
from tokenization.trajectories import compact
from trajvit_jax.convert.conversion import Converted
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import paths
from trajvit_jax.convert.report import Report
from trajvit_jax.convert.stored import write_folder
from trajvit_jax.evals.loaded import load

SCRIPT = Path(__file__).with_name("sharded_evaluation.py")


@pytest.fixture(scope="module")
def odd_records(tmp_path_factory, toy_record):
    """Eleven clips of four films, which no batch divides, with 2 to 6 trajectories, two classes and
    a box each, every third has two; two share a caption."""
    folder = tmp_path_factory.mktemp("odd")
    made = []
    for i in range(11):
        record = toy_record(i)
        labels = record.trajectories.labels.copy()
        labels[:, :4, : 4 * (i % 4) + 4] = 3 + np.repeat(np.arange(i % 4 + 1), 4)
        labels = compact(labels).astype(np.uint16)
        trajectories = dataclasses.replace(record.trajectories, labels=labels)
        captions = ("the same words",) if i in (2, 9) else record.captions
        corners = [(0.0, 0.0, 1.0, 1.0), (0.0, 0.0, 0.5, 1.0)][: 1 + (i % 3 == 0)]
        boxes = Boxes(
            np.array(corners, np.float32),
            np.full(len(corners), 2.0, np.float32),
            ("walk",) * len(corners),
        )
        own = {"captions": captions, "label": "xy"[i % 2], "boxes": boxes}
        extra = {"video": f"film{i // 3}"}
        made.append(dataclasses.replace(record, trajectories=trajectories, extra=extra, **own))
    write_records(folder, made, split="test")
    return folder


def start(devices, *arguments, **environment):
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def told(process):
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err[-3000:]
    return json.loads([line for line in out.splitlines() if line.startswith("{")][-1])


def arrays_of(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name in ("pairs", "starts", "box_starts"):
        np.testing.assert_array_equal(found[name], expected[name])
    for name in ("videos", "texts"):
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-6, err_msg=name)
    assert len(found["box_starts"]) == 11 + 4 + 1 and found["classified"].shape == (11, 2)
    for name in ("tokens", "scores", "box_tokens", "clips", "classified"):  # of size 1 and more
        np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("model", ["trajvit", pytest.param("rlt", marks=pytest.mark.slow)])
def test_eight_devices_are_one(runs, odd_records, tmp_path, model):
    one, eight = tmp_path / "one.npz", tmp_path / "eight.npz"
    alone = told(start(1, runs(model), odd_records, one))
    shared = told(start(8, runs(model), odd_records, eight, one))
    assert (alone["devices"], shared["devices"]) == (1, 8)
    assert alone["own"]["videos"] == 11 and alone["own"]["texts"] == 10
    assert shared["given"] == alone["own"] and shared["hash"] == alone["hash"]
    assert_same(arrays_of(eight), arrays_of(one))


@pytest.mark.slow
def test_weights_lie_on_all_devices_as_a_run_does(runs, odd_records, tmp_path):
    """Of a folder of `trajvit_jax.convert`, whose arrays one device would read."""
    run, folder = load(runs("vit3d")), tmp_path / "weights"
    arrays = {name: np.asarray(x) for name, x in paths(run.model).items()}
    layout = Layout(kind="vit3d", whole=True)
    write_folder(folder, Converted(layout, run.model.settings, arrays, Report()))
    shutil.copy(runs("vit3d") / "vocab.txt", folder)
    one, eight = tmp_path / "one.npz", tmp_path / "eight.npz"
    alone = told(start(1, runs("vit3d"), odd_records, one))
    shared = told(start(8, folder, odd_records, eight, one))
    assert shared["devices"] == shared["holding"] == 8 and alone["holding"] == 1
    assert shared["given"] == alone["own"] and shared["hash"] == alone["hash"]
    assert_same(arrays_of(eight), arrays_of(one))


@pytest.mark.slow
def test_two_processes_are_one(runs, odd_records, tmp_path):
    one, two = tmp_path / "one.npz", tmp_path / "two.npz"
    alone = told(start(1, runs("trajvit"), odd_records, one))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    members = [
        start(
            4,
            *(runs("trajvit"), odd_records, two, one),
            TRAJVIT_COORDINATOR=coordinator,
            TRAJVIT_PROCESSES="2",
            TRAJVIT_PROCESS=str(number),
        )
        for number in range(2)
    ]
    found = [told(member) for member in members]
    assert [one["devices"] for one in found] == [8, 8]
    assert found[0]["own"] == found[1]["own"]
    assert all(member["given"] == alone["own"] for member in found)
    assert_same(arrays_of(two), arrays_of(one))
