"""A checkpoint of one mesh and number of processes goes to another, also past a broken one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def run(start_script, printed, free_address):
    """Runs a task; returns what every process printed, the same of all."""

    def run(task: str, workdir: Path, mesh: str, *, processes: int = 1, devices: int = 4) -> dict:
        cluster = (free_address(), processes) if processes > 1 else ()
        members = [
            start_script(
                *("mesh_checkpoints.py", task, workdir, mesh),
                *(cluster and (*cluster, number)),
                devices=devices,
            )
            for number in range(processes)
        ]
        first, *others = [printed(member) for member in members]
        assert all(other == first for other in others)
        return first

    return run


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """A workdir that two processes of two devices wrote, and what they wrote."""
    workdir = tmp_path_factory.mktemp("saved")
    return workdir, run("save", workdir, "1,4,1", processes=2, devices=2)


@pytest.mark.parametrize(
    ("mesh", "devices"), [("1,1,1", 1), ("2,1,2", 4)], ids=["one device", "another mesh"]
)
def test_two_processes_to_one(run, saved, mesh, devices):
    workdir, written = saved
    assert run("restore", workdir, mesh, devices=devices) == written


def test_one_process_to_two_past_a_cut_array_of_one_of_them(run, tmp_path):
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
