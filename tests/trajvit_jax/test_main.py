"""The training command: what is wrong with a config is one line, and Ctrl-C ends it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import jax
import pytest

from tokenization.interrupts import PREEMPTION, Preempted
from tokenization.shards import write_records
from trajvit_jax import main
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.failures import ComesAgain
from trajvit_jax.pod.cluster import Cluster
from trajvit_jax.run.interrupts import StopRequest

ROOT = Path(__file__).parent.parent.parent


def command(*arguments: str) -> subprocess.Popen:
    line = [sys.executable, "-m", "trajvit_jax.main", *arguments]
    return subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--config=configs/demo.py:stepz=3"], "unknown config argument 'stepz': did you mean"),
        (["--config=configs/demo.py:steps=many"], "steps='many' must be int"),
        (["--config=configs/demo.py", "--config.stepz=3"], "the config names no setting 'stepz'"),
        (["--config=configs/none.py"], "config file 'configs/none.py' does not exist"),
        (["--config=configs/demo.py:model=vitt"], "model.name must be one of trajvit, vit3d"),
        (["--config=configs/demo.py:model=tracking_only"], "is trajvit on records of its own"),
    ],
)
def test_what_is_wrong_with_a_config_is_one_line(arguments, reason, tmp_path):
    process = command(*arguments, f"--workdir={tmp_path}/run")
    _, stderr = process.communicate()
    assert process.returncode == 2
    [line] = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert reason in line and "Traceback" not in stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("checks", [[], ["--only_check_args"]], ids=["run", "check"])
def test_records_without_a_split_to_evaluate_on_end_with_the_remedy(checks, toy_record, tmp_path):
    write_records(tmp_path / "records", [toy_record(i) for i in range(16)])
    config = f"--config=configs/panda2m.py:debug,frames=4,records={tmp_path}/records"
    process = command(config, f"--workdir={tmp_path}/run", *checks)
    _, stderr = process.communicate()
    assert process.returncode == 2 and "Traceback" not in stderr
    [line] = [line for line in stderr.splitlines() if line.startswith("error: ")]
    assert "has no split 'test'; it has: train" in line
    assert "--config.data.evaluation=FOLDER, or evaluation=FOLDER" in line
    assert "--split=test --output=FOLDER" in line


@pytest.mark.parametrize(("split", "gone"), [("test", False), (None, True)])
def test_a_check_of_the_arguments_opens_the_records_that_are_here(
    split, gone, toy_record, tmp_path
):
    if split:
        write_records(tmp_path / "held_out", [toy_record(0)], split=split)
    config = f"--config=configs/panda2m.py:frames=4,records=/none,evaluation={tmp_path}/held_out"
    of_it = f"retrieval --records={tmp_path}/held_out --frames=4"
    lines = (of_it, f"{of_it} --dataset=b", f"probing --records={tmp_path} --classes=/no.txt")
    process = command(
        config,
        f"--workdir={tmp_path}/run",
        f"--config.protocols={lines!r}",
        "--config.initial=/weights",
        "--only_check_args",
    )
    _, stderr = process.communicate()
    assert process.returncode == 0, stderr
    elsewhere = [*[f"{tmp_path}/held_out"] * gone, "/no.txt", "/none", "/weights"]
    *missing, last = stderr.splitlines()
    assert missing == [f"not checked: {one} is not on this machine" for one in elsewhere]
    assert last.startswith("checked: nothing is wrong")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("other", ["train", "test"])
def test_a_check_of_the_arguments_counts_frames(other, toy_record, tmp_path):
    for split in ("train", "test"):
        frames = 8 if split == other else 4
        write_records(tmp_path / "records", [toy_record(0, frames=frames)], split=split)
    config = f"--config=configs/panda2m.py:debug,frames=4,records={tmp_path}/records"
    process = command(config, f"--workdir={tmp_path}/run", "--only_check_args")
    _, stderr = process.communicate()
    assert process.returncode == 2 and "has 8 frames, the model reads 4" in stderr


@pytest.mark.parametrize("optimize", [True, False])
def test_settings_say_whether_programs_are_optimized(optimize, monkeypatch):
    updates = []
    monkeypatch.setattr(jax.config, "update", lambda *update: updates.append(update))
    main._compile_as(ExperimentSettings(optimize=optimize))
    assert updates == ([] if optimize else [("jax_disable_most_optimizations", True)])


@pytest.fixture
def end(monkeypatch, tmp_path):
    """How a run by `train` ends in one or several processes: exit code, and what was called."""
    told = []

    def leave(message, code):
        told.append(message)
        raise SystemExit(code)

    def run(train, *, several):
        own = Cluster("here:1", 2, 0) if several else None
        for name, value in {"_WORKDIR": str(tmp_path), "_CONFIG": {}}.items():
            monkeypatch.setattr(main, name, types.SimpleNamespace(value=value))
        monkeypatch.setattr(main, "_log_plainly", lambda: None)
        monkeypatch.setattr(main.interrupts, "leave", leave)
        monkeypatch.setattr(main.cluster, "from_environment", lambda env: own)
        monkeypatch.setattr(main.cluster, "start", lambda own: None)
        monkeypatch.setattr(main.cluster, "stop", lambda own: told.append("stopped"))
        program = main.Program(None, lambda: (ExperimentSettings, train))
        with pytest.raises(SystemExit) as ended:
            main.main(["main"], program)
        return ended.value.code, told

    return run


@pytest.mark.parametrize("several", [False, True])
def test_what_a_disk_refuses_ends_the_run_for_all(end, several, capsys):
    """Of several processes none is waited for: the others would wait for this one."""

    def train(settings, workdir):
        raise OSError(errno.ENOSPC, "No space left on device")

    code, told = end(train, several=several)
    assert code == 1 and "stopped" not in told
    message = told[0] if several else capsys.readouterr().err
    assert message.startswith("error: ") and "No space left" in message


@pytest.mark.parametrize(
    ("error", "code"),
    [(ValueError("wrong"), 2), (ComesAgain("bad"), 2), (RuntimeError("after step 3: stale"), 1)],
)
def test_what_only_a_restart_may_mend_has_another_code(end, error, code):
    def train(settings, workdir):
        raise error

    got, [message] = end(train, several=True)
    assert got == code and str(error) in message


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_reminder_does_not_disturb_the_end_of_a_stopped_run(end):
    before = {number: signal.getsignal(number) for number in PREEMPTION}

    def train(settings, workdir):
        raise Preempted("stopped after step 2")

    try:
        code, told = end(train, several=True)
        assert all(signal.getsignal(number) == signal.SIG_IGN for number in PREEMPTION)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert code == 75
    assert told == ["stopped", "stopped after step 2; run the same command again to go on"]


def test_help_teaches():
    out, _ = command("--help").communicate()
    assert "python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine" in out
    assert "--workdir" in out and "python -m pydoc configs/demo.py" in out


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_before_the_first_step_ends_with_a_line(toy_record, tmp_path):
    """Twice at once, as `timeout` does."""
    for split in ("train", "test"):
        write_records(tmp_path / "records", [toy_record(i) for i in range(4)], split=split)
    config = f"configs/demo.py:records={tmp_path}/records,frames=4"
    process = command(f"--config={config}", f"--workdir={tmp_path}/run", "--config.data.batch=4")
    while not (tmp_path / "run" / "vocab.txt").exists() and process.poll() is None:
        time.sleep(0.01)
    for _ in range(2):
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 130, stderr
    assert "run the same command again to go on" in stderr
    assert "Traceback" not in stderr and "Fatal" not in stderr
    assert [path.name for path in (tmp_path / "run").glob(".*")] in ([], [".lock"])


def test_two_signals_of_one_press_request_one_stop():
    with StopRequest() as stop:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_a_second_press_interrupts(monkeypatch):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested
        monkeypatch.setattr("trajvit_jax.run.interrupts.ONE_PRESS", -1.0)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
