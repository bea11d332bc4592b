"""The configs of the paper's runs, in their debug form, on toy records."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from trajvit_jax import config as configs
from trajvit_jax.evals.loaded import load
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.settings import FED_TRAJVIT, NAMES
from trajvit_jax.train import train

# Beside TrajViT, which is trained below, and ViT, which reads images alone.
OTHERS = sorted({*NAMES, *FED_TRAJVIT} - {"trajvit", "vit"})
ROOT = Path(__file__).parent.parent.parent / "configs"


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        pytest.param("panda2m.py", "records={0}/videos", marks=pytest.mark.slow),
        ("panda4m.py", "records={0}/videos"),
        ("panda8m.py", "group=16,records={0}/videos"),
        ("panda8m_datacomp50m.py", "steps=5,records={0}/videos,image_records={0}/images"),
        pytest.param("datacomp50m.py", "image_records={0}/images", marks=pytest.mark.slow),
    ],
)
def test_the_debug_form_trains(name, arguments, toys, tmp_path, caplog):
    """With packing and augmentation, as in the real run; nothing is compiled after step 2.

    Of rows that do not fit, as those of 16 toys, nothing is told.
    """
    arguments = f"debug,frames=4,{arguments.format(toys)}"
    config = configs.load(f"{ROOT}/{name}:{arguments}")
    settings = configs.to_settings(ExperimentSettings, config)
    assert settings.step.augment and all(stream.packing for stream in settings.data.streams)
    results = train(settings, tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    told = [line for line in map(json.loads, lines) if "loss" in line]
    assert [line["step"] for line in told] == list(range(1, settings.steps + 1))
    assert told[1]["compilations"] == told[-1]["compilations"] == len(settings.data.streams)
    assert results["parameters"] > 0
    assert "do not fit these records" not in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_the_debug_form_of_every_model_trains(name, toys, tmp_path):
    arguments = f"debug,frames=4,model={name},steps=2,records={toys}/videos"
    config = configs.load(f"{ROOT}/panda4m.py:{arguments}")
    settings = configs.to_settings(ExperimentSettings, config)
    assert settings.model.name == FED_TRAJVIT.get(name, name)
    results = train(settings, tmp_path / "run")
    assert results["parameters"] > 0 and results["videos"] > 0


@pytest.mark.slow
def test_videos_go_on_from_images(toys, tmp_path):
    """The image -> video transfer, as the configs' first lines tell it."""

    def run(name, arguments):
        config = configs.load(f"{ROOT}/{name}:debug,{arguments}")
        settings = configs.to_settings(ExperimentSettings, config)
        train(settings, tmp_path / settings.model.name)
        found = load(tmp_path / settings.model.name)
        return found.model, found.words()

    image, words = run("datacomp50m.py", f"model=vit,image_records={toys}/images")
    started = f"initial={tmp_path}/vit,records={toys}/videos,frames=4,seed=3"
    video, same = run("panda8m_from_images.py", started)
    assert same.vocabulary == words.vocabulary
    # Two steps at a small rate lead nowhere: layers are still near those of the images.
    ours, theirs = (np.asarray(model.encoder.layers.mlp_in.kernel[...]) for model in (video, image))
    assert 0 < np.abs(ours - theirs).max() < 1e-3
    kernel = np.asarray(video.tokenizer.embed.kernel[...]).reshape(2, -1, ours.shape[1])
    assert np.abs(kernel[0]).max() < 1e-3 < np.abs(kernel[1]).max()
