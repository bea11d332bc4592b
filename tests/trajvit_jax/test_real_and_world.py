"""The mixture of real clips and the world: its config trains on all sources in every batch."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from tokenization.shards import write_records
from trajvit_jax import config as configs
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import open_streams
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.settings import ResNetSettings, TrajViTSettings
from trajvit_jax.train import train

CONFIG = Path(__file__).parent.parent.parent / "configs" / "real_and_world.py"
FRAMES = 8
SHARES = {"exercises": 4, "panda": 1, "world": 3}


@pytest.fixture(scope="module")
def records(tmp_path_factory, toy_record):
    folder = tmp_path_factory.mktemp("records")
    for source in SHARES:
        for split in ("train", "test"):
            made = [renamed(toy_record(i, frames=FRAMES), f"{source}-{i}") for i in range(4)]
            write_records(folder / source, made, split=split)
    return folder


def renamed(record, name):
    video = dataclasses.replace(record.trajectories.video, id=name)
    return dataclasses.replace(
        record, trajectories=dataclasses.replace(record.trajectories, video=video)
    )


def resolve(records: Path, *arguments: str) -> ExperimentSettings:
    text = ",".join([f"records={records}", "batch=8", *arguments])
    return configs.to_settings(ExperimentSettings, configs.load(f"{CONFIG}:{text}"))


def test_every_batch_has_clips_of_every_source(records):
    settings = resolve(records)
    streams = open_streams(settings.data.train_streams(FRAMES))
    text = WordPiece.train(["a red square"], settings.model.text.length)
    steps = train_steps(streams, settings.model, text, seed=0, resize=False)
    for _ in range(8):  # the smallest source, one clip a batch, is read twice in full
        ids = next(steps).ids
        assert {name: sum(i.startswith(name) for i in ids) for name in SHARES} == SHARES
    steps.close()


@pytest.mark.slow
def test_two_steps_of_the_mixture(records, tiny, tmp_path):
    settings = resolve(records, "steps=2")
    one_stage = TrajViTSettings(max_trajectories=6, resnet=ResNetSettings(4, (8,), (1,)))
    small = tiny("trajvit", frames=FRAMES, trajvit=one_stage)
    results = train(dataclasses.replace(settings, model=small, log_every=1), tmp_path)
    assert results["videos"] == 4  # of the first source's test split
    lines = (tmp_path / "metrics.jsonl").read_text("utf-8").splitlines()
    assert [line["step"] for line in map(json.loads, lines) if "loss" in line] == [1, 2]


def test_a_weight_of_zero_leaves_a_source_out(records):
    settings = resolve(records, "exercises=0", "panda=0")
    assert [Path(source.path).name for source in settings.data.train_sources] == ["world"]
    assert Path(settings.data.evaluation_folder).name == "world"
    with pytest.raises(ValueError, match="at least one of exercises, panda, world"):
        resolve(records, "exercises=0", "panda=0", "world=0")


def test_augmentation_is_the_paper_s_a_mild_one_or_none(records):
    paper, mild, none = (
        resolve(records, f"augment={name}").step.augment for name in ("paper", "mild", "none")
    )
    assert (paper.flip, paper.grayscale, paper.hue) == (0.5, 0.2, 0.1)
    assert (mild.flip, mild.grayscale, mild.hue) == (0, 0, 0) and none is None
    with pytest.raises(ValueError, match="unknown augment 'midl': did you mean 'mild'"):
        resolve(records, "augment=midl")
