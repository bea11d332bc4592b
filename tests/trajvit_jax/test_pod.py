"""A whole run in two processes of four devices is the run of one, and goes on as one."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from trajvit_jax import config as configs
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import open_streams
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.run.sample_log import ids_hash, read_samples, samples_path

ROOT = Path(__file__).parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def config(toys):
    """Six joint steps on toy records, packed and augmented, with a checkpoint at every third."""
    arguments = f"debug,frames=4,steps=6,records={toys}/videos,image_records={toys}/images"
    return [
        f"--config={ROOT}/configs/panda8m_datacomp50m.py:{arguments}",
        "--config.checkpoint_every=3",
        "--config.log_samples=True",
    ]


def environment(folder: Path) -> dict[str, str]:
    return os.environ | {
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
    }


def run(command: list[str], folder: Path) -> None:
    done = subprocess.run(
        command, env=environment(folder), cwd=ROOT, capture_output=True, text=True, check=False
    )
    logs = "".join(path.read_text()[-3000:] for path in folder.glob("*/logs/*.log"))
    assert done.returncode == 0, done.stderr[-3000:] + logs


def losses(workdir: Path) -> dict[int, float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def order(config: list[str], vocabulary: Path) -> list[tuple[str, ...]]:
    """Ids of what each of the six steps reads, in order."""
    named = config[0].removeprefix("--config=")
    settings = configs.to_settings(ExperimentSettings, configs.load(named))
    text = WordPiece.load(vocabulary, settings.model.text.length)
    streams = open_streams(settings.data.train_streams(settings.model.frames))
    steps = train_steps(streams, settings.model, text, seed=settings.seed, resize=False)
    read = [loaded.ids for loaded in itertools.islice(steps, 6)]
    steps.close()
    return read


def hashes(order: list[tuple[str, ...]], part: int = 0, parts: int = 1) -> dict[int, str]:
    """What a process notes that reads one of so many equal parts of every step."""
    return {
        step: ids_hash(ids[part * len(ids) // parts : (part + 1) * len(ids) // parts])
        for step, ids in enumerate(order, 1)
    }


def test_two_processes_train_as_one_and_one_goes_on_from_them(config, tmp_path):
    alone, pod = tmp_path / "alone", tmp_path / "pod"
    train = [sys.executable, "-m", "trajvit_jax.main", *config]
    run([*train, f"--workdir={alone}"], tmp_path)
    expected = losses(alone)
    assert sorted(expected) == [1, 2, 3, 4, 5, 6]

    launch = [str(ROOT / "launch/run_pod.sh"), "--processes-per-host=2", "--cpu-devices=4"]
    run([*launch, "--retries=0", f"--workdir={pod}", *config], tmp_path)
    found = losses(pod)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-5)
    results = [json.loads((path / "results.json").read_text()) for path in (alone, pod)]
    assert results[0]["txt2vid_r5"] == results[1]["txt2vid_r5"]
    read = order(config, alone / "vocab.txt")
    assert read_samples(samples_path(alone)) == hashes(read)
    for process in range(2):
        assert read_samples(samples_path(pod, process)) == hashes(read, process, 2)

    # From the pod's checkpoint at step 3, on one device.
    for path in (pod / "checkpoints").glob("6*"):
        path.rename(path.with_name("later"))
    (pod / "checkpoints/later").rename(tmp_path / "later")
    run([*train, f"--workdir={pod}"], tmp_path)
    resumed = losses(pod)
    np.testing.assert_allclose(list(resumed.values()), list(expected.values()), rtol=1e-5)
    whole, halves = hashes(read), hashes(read, 0, 2)
    expected_samples = {step: (halves if step <= 3 else whole)[step] for step in range(1, 7)}
    assert read_samples(samples_path(pod)) == expected_samples

    # Nothing is left to do, which process 0 sees for both.
    results_before = (pod / "results.json").stat().st_mtime_ns
    run([*launch, "--retries=0", f"--workdir={pod}", *config], tmp_path)
    for process in range(2):
        assert "is finished: all 6 steps" in (pod / f"logs/process-{process}.log").read_text()
    assert (pod / "results.json").stat().st_mtime_ns == results_before
