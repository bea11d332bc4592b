"""A checkpoint of one mesh and number of processes goes to another, also past a broken one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("mesh_checkpoints.py")


def run(task: str, workdir: Path, mesh: str, *, processes: int = 1, devices: int = 4) -> dict:
    """What every process printed, the same of all."""
    environment = os.environ | {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
    }
    cluster = []
    if processes > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            cluster = [f"127.0.0.1:{free.getsockname()[1]}", str(processes)]
    members = [
        subprocess.Popen(
            [
                *(sys.executable, str(SCRIPT), task, str(workdir), mesh),
                *(cluster and [*cluster, str(number)]),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    ended = [member.communicate(timeout=300) for member in members]
    for member, (_, stderr) in zip(members, ended, strict=True):
        assert member.returncode == 0, stderr[-3000:]
    first, *others = [json.loads(stdout.splitlines()[-1]) for stdout, _ in ended]
    assert all(other == first for other in others)
    return first


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A workdir that two processes of two devices wrote, and what they wrote."""
    workdir = tmp_path_factory.mktemp("saved")
    return workdir, run("save", workdir, "1,4,1", processes=2, devices=2)


@pytest.mark.parametrize(
    ("mesh", "devices"), [("1,1,1", 1), ("2,1,2", 4)], ids=["one device", "another mesh"]
)
def test_two_processes_to_one(saved, mesh, devices):
    workdir, written = saved
    assert run("restore", workdir, mesh, devices=devices) == written


def test_one_process_to_two_past_a_cut_array_of_one_of_them(tmp_path):
    written = run("save", tmp_path, "1,8,1", devices=8)
    folder = tmp_path / "checkpoints"
    newest = folder / "2" / "state" / "ocdbt.process_0" / "d"
    largest = max(newest.iterdir(), key=lambda path: path.stat().st_size)
    # A listing made after the damage: what is left is found on reading, by those who read it.
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    note = "from trajvit_jax.run.whole_files import note_files; from pathlib import Path; "
    note += f"note_files(Path({str(folder / '2')!r}))"
    subprocess.run([sys.executable, "-c", note], check=True)
    found = run("restore", tmp_path, "2,2,1", processes=2, devices=2)
    assert found["step"] == 1 and found["checksums"].keys() == written["checksums"].keys()
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2.broken"]
