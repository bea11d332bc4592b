"""Runs that start from other runs: the paper's way from images to videos."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

from tokenization.shards import write_records
from trajvit_jax.convert.inflation import inflate
from trajvit_jax.convert.pieces import paths
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals.loaded import load
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.initial import start_from
from trajvit_jax.models.settings import ViT3DSettings
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.sharding import MeshSettings, make_mesh
from trajvit_jax.state import TrainState
from trajvit_jax.step import StepSettings
from trajvit_jax.train import train

STILL = OptimizerSettings(learning_rate=0.0, weight_decay=0.0)


@pytest.fixture(scope="module")
def experiment(toy_record, tiny, tmp_path_factory):
    """A run of one step on images, or on videos."""
    root = tmp_path_factory.mktemp("records")
    for frames in (1, 4):
        write_records(root / str(frames), [toy_record(i, frames=frames) for i in range(16)])

    def make(name: str, frames: int, **changes) -> ExperimentSettings:
        patches = ViT3DSettings(patch=8, tubelet=min(frames, 2))
        data = DataSettings(
            train=str(root / str(frames)), eval_split="train", batch=4, eval_batch=8, threads=1
        )
        values = {"steps": 1, "log_every": 1, "checkpoint_every": 1} | changes
        model = tiny(name, frames=frames, vit3d=patches)
        return ExperimentSettings(model=model, data=data, **values)

    return make


@pytest.fixture(scope="module")
def images(experiment, tmp_path_factory):
    """The workdir of a run on images."""
    workdir = tmp_path_factory.mktemp("runs") / "images"
    train(experiment("vit", 1, step=StepSettings(average_decay=0.5)), workdir)
    return workdir


def arrays_of(model):
    return {name: np.asarray(value) for name, value in paths(model).items()}


@pytest.mark.slow
def test_a_run_on_videos_starts_from_a_run_on_images(experiment, images, tmp_path, caplog):
    settings = experiment("vit3d", 4, initial=str(images), optimizer=STILL, seed=7)
    with caplog.at_level(logging.INFO):
        train(settings, tmp_path / "videos")
    assert f"starts from {images}" in caplog.text
    image, video = load(images).model, load(tmp_path / "videos").model
    expected, _ = inflate(arrays_of(image), image.settings, video.settings)
    found = arrays_of(video)
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    # Tubelets see their second frame as the image's patches, and not the first.
    kernel = found["tokenizer.embed.kernel"].reshape(2, -1, 32)
    assert not kernel[0].any() and kernel[1].any()


def state_of(settings, text):
    model = dataclasses.replace(
        settings.model,
        text=dataclasses.replace(settings.model.text, vocabulary=len(text)),
    )
    return TrainState.initialize(model, optimizer(settings.optimizer, 1), 3, averaged=True)


def test_another_vocabulary_leaves_the_text_side_as_it_is(experiment, images, caplog):
    text = WordPiece.train(["a caption of other words entirely"], 16, size=60)
    state = state_of(experiment("tome", 4), text)
    mesh = make_mesh(MeshSettings())
    started = start_from(state, images, text, mesh=mesh)
    assert "another vocabulary" in caplog.text
    old, new = arrays_of(state.model()), arrays_of(started.model())
    image = arrays_of(load(images).model)
    for name in old:
        mine = name.startswith(("text", "project_text", "temperature"))
        if name.startswith("encoder"):
            np.testing.assert_array_equal(new[name], image[name])
        assert not mine or np.array_equal(new[name], old[name]), name
    # The average starts where the parameters do.
    averages = zip(jax.tree.leaves(started.average), jax.tree.leaves(started.params), strict=True)
    assert all(np.array_equal(one, other) for one, other in averages)
    assert int(started.step) == 0


def test_what_does_not_fit_is_refused(experiment, images, tmp_path):
    text = load(images).words()
    mesh = make_mesh(MeshSettings())
    with pytest.raises(ValueError, match=r"images does not fit the model"):
        start_from(state_of(experiment("vivit", 4), text), images, text, mesh=mesh)
    with pytest.raises(FileNotFoundError, match=r"python -m trajvit_jax\.convert"):
        start_from(state_of(experiment("vit3d", 4), text), tmp_path, text, mesh=mesh)
