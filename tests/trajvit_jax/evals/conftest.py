"""Runs that were never trained: a model of random numbers where a trained one would lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tokenization.records import Boxes
from tokenization.shards import write_records
from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import ExperimentSettings, note
from trajvit_jax.optim import optimizer
from trajvit_jax.state import TrainState

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


@pytest.fixture(scope="session")
def toy_records(tmp_path_factory, toy_record) -> Path:
    """Twelve clips of the toy, labelled by their colours, in the split `test`."""
    folder = tmp_path_factory.mktemp("toy_records")
    colours = ("red", "green", "blue", "grey")
    made = [dataclasses.replace(toy_record(i), label=colours[i % 4]) for i in range(12)]
    write_records(folder, made, split="test")
    return folder


@pytest.fixture(scope="session")
def long_records(tmp_path_factory, toy_record) -> Path:
    """Eight clips of twice as many frames as the tiny models read, in both splits."""
    folder = tmp_path_factory.mktemp("long")
    made = [
        dataclasses.replace(toy_record(i, frames=8), label=("red", "green")[i % 2])
        for i in range(8)
    ]
    for split in ("train", "test"):
        write_records(folder, made, split=split)
    return folder


@pytest.fixture(scope="session")
def boxed_records(tmp_path_factory, toy_record) -> Path:
    """Clips whose square, label 2, is on one side; two people, one of them with two actions."""
    folder = tmp_path_factory.mktemp("boxed")
    made = []
    for i in range(8):
        record = toy_record(i)
        side = LEFT if i // 4 % 2 == 0 else RIGHT
        other = RIGHT if side is LEFT else LEFT
        boxes = Boxes(
            np.array([side, side, other], np.float32),
            np.full(3, 2.0, np.float32),
            ("walk", "talk", "sit"),
        )
        extra = {"video": f"film{i // 2}"}
        made.append(dataclasses.replace(record, boxes=boxes, extra=extra))
    for split in ("train", "test"):
        write_records(folder, made, split=split)
    return folder


@pytest.fixture(scope="session")
def write_run(tiny, random_model, toy_record) -> Callable[..., ExperimentSettings]:
    """Writes the workdir of a run of six steps, and returns its settings."""

    def write(workdir: Path, name: str = "vit3d", **changes: Any) -> ExperimentSettings:
        text = WordPiece.train([c for i in range(16) for c in toy_record(i).captions], 12, size=64)
        settings = ExperimentSettings(
            model=tiny(name, **changes), data=DataSettings(train="records"), steps=6, seed=3
        )
        sized = dataclasses.replace(settings.model.text, vocabulary=len(text))
        model = random_model(dataclasses.replace(settings.model, text=sized))
        state = TrainState.create(model, optimizer(settings.optimizer, settings.steps))
        with Checkpoints(workdir) as checkpoints:
            checkpoints.save(6, state.replace(step=state.step + 6), wait=True)
        note(workdir, settings, "fingerprint")
        text.save(workdir / "vocab.txt")
        return settings

    return write


@pytest.fixture(scope="session")
def runs(tmp_path_factory, write_run) -> Callable[[str], Path]:
    """Workdirs by the name of the model, each written once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"run_{name}")
            write_run(made[name], name)
        return made[name]

    return get
