"""The benchmark of the training step: its search, its tables, its verdicts."""

from __future__ import annotations

import dataclasses
import json
import subprocess
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import train_step
from benchmarks.parts.train_step_run import Attempt
from trajvit_jax.ops.segments import Segments


@pytest.mark.parametrize(
    ("limit", "most", "found"),
    [(8, 1024, 8), (100, 1024, 96), (1000, 1024, 960), (5000, 256, 256), (383, 1024, 352)],
)
def test_the_largest_batch_is_found_to_an_eighth(limit: int, most: int, found: int):
    tried = []

    def fits(batch: int) -> bool:
        tried.append(batch)
        return batch <= limit

    assert train_step.largest(fits, 8, most) == found
    assert len(set(tried)) == len(tried)
    assert all(batch % 8 == 0 for batch in tried)


def test_a_model_too_large_for_one_group_says_so():
    with pytest.raises(RuntimeError, match="a batch of 8 does not fit; try --remat"):
        train_step.largest(lambda batch: False, 8, 1024)


def test_what_is_too_large_ends_the_search_and_nothing_else():
    assert train_step.too_large("XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory ...")
    assert not train_step.too_large("ValueError: frames")
    labels = jax.ShapeDtypeStruct((256, 16, 56, 56), jnp.int32)
    with pytest.raises(ValueError, match="split the batch") as error:
        jax.eval_shape(lambda x: Segments.of(x, 896).coarse_masks(28, 28), labels)
    assert train_step.too_large(f"error: {error.value}")


@pytest.mark.parametrize("own", ["", *train_step.FRACTIONS])
def test_attempts_have_the_memory_of_training(monkeypatch, own: str):
    for name in train_step.FRACTIONS:
        monkeypatch.delenv(name, raising=False)
    if own:
        monkeypatch.setenv(own, "0.5")

    def run(command, env, **_: object) -> subprocess.CompletedProcess:
        fractions = {name: env[name] for name in train_step.FRACTIONS if name in env}
        return subprocess.CompletedProcess(command, 0, json.dumps(fractions), "")

    monkeypatch.setattr(subprocess, "run", run)
    [(name, fraction)] = train_step.in_process(Attempt("vit3d", "L", 8)).items()
    assert (name, fraction) == ((own, "0.5") if own else (name, train_step.MEMORY))
    script = Path(__file__).parent.parent / "launch" / "run_host.sh"
    assert f"{train_step.FRACTIONS[-1]}={train_step.MEMORY}\n" in script.read_text("utf-8")


def test_the_time_of_compiling_is_that_of_the_search(monkeypatch, capsys, tmp_path):
    """Later attempts load the program."""
    tried: set[int] = set()

    def measured(attempt: Attempt) -> dict[str, object]:
        compiling = 0.1 if attempt.batch in tried else float(attempt.batch)
        tried.add(attempt.batch)
        told = {"attempt": dataclasses.asdict(attempt), "compiling": compiling}
        return step("vit3d", 2.0) | told | {"fits": attempt.batch <= 24}

    monkeypatch.setattr(train_step, "in_process", measured)
    monkeypatch.setattr(train_step, "_device", lambda: ("gpu", "0.11.2", "NVIDIA H200"))
    file = tmp_path / "step.json"
    train_step.main(["--models=vit3d", "--no_parts", f"--json={file}"])
    [found] = json.loads(file.read_text("utf-8"))["steps"]
    assert found["attempt"]["batch"] == 24 == found["compiling"]


def result(model: str, seconds: float, **more: object) -> dict[str, object]:
    attempt = {"model": model, "size": "L", "batch": 64}
    return {"attempt": attempt, "fits": True, "peak_flops": 1e12, "seconds": [seconds]} | more


def step(model: str, seconds: float) -> dict[str, object]:
    rate = 64 / seconds
    sizes = {"slots": 6400, "flops": 4e11, "peak_memory": 2e9, "compiling": 9.0}
    return result(model, seconds, videos_a_second=rate, **sizes)


def test_a_line_of_the_table():
    line = train_step.table([step("trajvit", 0.5)]).splitlines()[-1]
    assert line == "| TrajViT-L | 64 | 100 | 500.0 | 128.0 | 80% | 2.0 | 9 |"


def test_parts_are_told_for_a_video_beside_the_step():
    parts = result("vit3d", 0.0, parts={"transformer": 0.32, "text": 0.064})
    parts["attempt"]["batch"] = 32
    lines = train_step.parts_table([parts], [step("vit3d", 0.64)]).splitlines()
    assert lines[0] == "| model | batch | transformer | text | sum | the step |"
    assert lines[-1] == "| ViT3D-L | 32 | 10.00 | 2.00 | 12.00 | 10.00 |"


@pytest.mark.parametrize(("seconds", "holds"), [(1.0, True), (1.2, False)])
def test_the_transformer_must_use_the_hardware(seconds: float, holds: bool):
    parts = [result("vit3d", 0.0, parts={"transformer": seconds}, transformer_flops=4.6e11)]
    [(text, found)] = train_step.verdicts([step("vit3d", 2.0)], parts).items()
    assert found is holds and "bound 45%" in text


@pytest.mark.parametrize(("seconds", "holds"), [(0.5, True), (0.6, False)])
def test_trajectories_must_be_faster_than_patches(seconds: float, holds: bool):
    [(text, found)] = train_step.verdicts(
        [step("trajvit", seconds), step("vit3d", 2.0)], []
    ).items()
    assert found is holds and "bound 4x" in text


def test_a_batch_that_does_not_fit_is_an_error_but_for_parts(monkeypatch):
    def measured(attempt: Attempt) -> dict[str, object]:
        return {"fits": attempt.batch <= 16, "attempt": {"batch": attempt.batch}}

    monkeypatch.setattr(train_step, "in_process", measured)
    attempt = Attempt("vit3d", "L", 64)
    with pytest.raises(SystemExit, match="a batch of 64 does not fit; take a smaller --batch"):
        train_step._fitting(attempt)
    parts = Attempt("vit3d", "L", 64, parts=True)
    assert train_step._fitting(parts)["attempt"]["batch"] == 16


def test_numbers_are_of_a_commit(monkeypatch, capsys, tmp_path):
    def measured(attempt: Attempt) -> dict[str, object]:
        return step("vit3d", 2.0) | {"attempt": dataclasses.asdict(attempt)}

    monkeypatch.setattr(train_step, "in_process", measured)
    monkeypatch.setattr(train_step, "_device", lambda: ("cpu", "0.10.2", "cpu"))
    monkeypatch.setattr(train_step, "commit", lambda: "0123abc+")
    file = tmp_path / "step.json"
    train_step.main(["--quick", "--models=vit3d", "--no_parts", f"--json={file}"])
    assert "cpu, jax 0.10.2, commit 0123abc+" in capsys.readouterr().out
    report = json.loads(file.read_text("utf-8"))
    assert report["commit"] == "0123abc+" and len(report["steps"]) == 1


def test_unknown_models_are_named(capsys):
    with pytest.raises(SystemExit):
        train_step.main(["--models=vit"])
    assert "'vit' is unknown: did you mean 'vit3d'" in capsys.readouterr().err
