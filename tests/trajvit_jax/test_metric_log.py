"""What TensorBoard and Weights & Biases get of a run, and of one that was resumed."""

from __future__ import annotations

import math
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX import event_file_writer
from tensorboardX.proto.event_pb2 import Event, SessionLog

from trajvit_jax.run.metric_log import MetricLog


@pytest.fixture(autouse=True)
def seconds_pass(monkeypatch):
    """Event files are named after the second they are opened in: each gets one of its own."""
    started = iter(range(1_700_000_000, 1_800_000_000))
    clock = types.SimpleNamespace(time=lambda: float(next(started)))
    monkeypatch.setattr(event_file_writer, "time", clock)


def events(file: Path) -> Iterator[Event]:
    """The records of a TFRecord file: length and its checksum, bytes and their checksum."""
    data, at = file.read_bytes(), 0
    while at < len(data):
        (size,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + size])
        at += 12 + size + 4


def shown(workdir: Path) -> list[tuple[str, int, float]]:
    """Name, step and value of the scalars that TensorBoard shows.

    A session that starts at a step takes what earlier ones wrote from that step on.
    """
    scalars: list[tuple[str, int, float]] = []
    for file in sorted((workdir / "tensorboard").glob("events.out.tfevents.*")):
        for event in events(file):
            if event.session_log.status == SessionLog.START:
                scalars = [one for one in scalars if one[1] < event.step]
            scalars += [(one.tag, event.step, one.simple_value) for one in event.summary.value]
    return scalars


def test_tensorboard_shows_every_finite_value(tmp_path):
    with MetricLog(tmp_path) as log:
        log.write(1, {"loss": 2.5, "mfu": math.nan})
        log.write(2, {"loss": 1.5})
        log.write(2, {"eval/txt2vid_r1": 50.0})
    assert shown(tmp_path) == [("loss", 1, 2.5), ("loss", 2, 1.5), ("eval/txt2vid_r1", 2, 50.0)]


def test_tensorboard_forgets_the_steps_that_are_made_again(tmp_path):
    with MetricLog(tmp_path) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": float(step)})
    with MetricLog(tmp_path, step=2) as log:
        log.write(3, {"loss": 30.0})
    assert len(list((tmp_path / "tensorboard").iterdir())) == 2
    assert shown(tmp_path) == [("loss", 1, 1.0), ("loss", 2, 2.0), ("loss", 3, 30.0)]


@pytest.fixture
def wandb(monkeypatch):
    """A package of that name; `calls` has what it was called with."""
    calls: list[tuple[object, ...]] = []

    class Run:
        def log(self, values: dict[str, float], step: int) -> None:
            calls.append(("log", step, values))

        def finish(self) -> None:
            calls.append(("finish",))

    def init(**settings: object) -> Run:
        calls.append(("init", settings))
        return Run()

    module = types.SimpleNamespace(init=init, calls=calls)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_a_project_gets_every_finite_value_and_the_end_of_the_run(tmp_path, wandb):
    with MetricLog(tmp_path / "mine", wandb="trajectories") as log:
        log.write(1, {"loss": 2.5, "mfu": math.inf})
        log.write(2, {"loss": 1.5})
    (_, settings), *rest = wandb.calls
    assert settings["project"] == "trajectories" and settings["name"] == "mine"
    assert settings["dir"] == tmp_path / "mine"
    assert rest == [("log", 1, {"loss": 2.5}), ("log", 2, {"loss": 1.5}), ("finish",)]


def test_a_run_that_fails_is_finished_there_too(tmp_path, wandb):
    with pytest.raises(OSError, match="full"), MetricLog(tmp_path, wandb="trajectories"):
        raise OSError("the disk is full")
    assert wandb.calls[-1] == ("finish",)


def test_a_run_whose_files_cannot_be_opened_is_finished_there_too(tmp_path, wandb):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OSError, match="directory"):
        MetricLog(tmp_path, wandb="trajectories")
    assert [call[0] for call in wandb.calls] == ["init", "finish"]


def test_a_resumed_run_goes_on_in_its_own_run_there(tmp_path, wandb, monkeypatch):
    """The same workdir by another path is the same run; one of the same name elsewhere is not."""
    monkeypatch.chdir(tmp_path)
    for workdir in (tmp_path / "a/mine", Path("a/mine"), tmp_path / "b/mine"):
        with MetricLog(workdir, wandb="trajectories"):
            pass
    first, again, other = (call[1] for call in wandb.calls if call[0] == "init")
    assert first["id"] == again["id"] != other["id"]
    assert first["resume"] == again["resume"] == "allow"
    assert first["name"] == other["name"] == "mine"


def test_a_project_without_the_package_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    with pytest.raises(ValueError, match=r"wandb='trajectories' needs the package wandb: pip"):
        MetricLog(tmp_path, wandb="trajectories")
    assert not (tmp_path / "metrics.jsonl").exists()


def test_without_a_project_nothing_is_sent(tmp_path, wandb):
    with MetricLog(tmp_path) as log:
        log.write(1, {"loss": 2.5})
    assert wandb.calls == []
