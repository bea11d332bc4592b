"""Models of runs and of folders; what is missing in them is told."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import trajvit_jax
from tokenization.recorder import ExtractSettings
from tokenization.records import to_json
from trajvit_jax.api import load
from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.convert.__main__ import main as convert
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.experiment import TOKENIZATION, ExperimentSettings, note
from trajvit_jax.export import export
from trajvit_jax.export import main as export_command
from trajvit_jax.optim import optimizer
from trajvit_jax.state import TrainState

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def run(model, cut, tmp_path_factory):
    """The workdir of a run that ended as the model of the folder."""
    records, workdir = (tmp_path_factory.mktemp(name) for name in ("records", "run"))
    (records / "settings.json").write_text(to_json(dataclasses.asdict(cut)))
    settings = ExperimentSettings(
        model=model.settings, data=DataSettings(train=str(records)), steps=6, seed=3
    )
    state = TrainState.create(model.module, optimizer(settings.optimizer, 6))
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(6, state.replace(step=state.step + 6), wait=True)
    note(workdir, settings, "fingerprint")
    model.text.save(workdir / "vocab.txt")
    shutil.rmtree(records)  # a run tells how they were made when they are gone
    return workdir


def test_a_run_and_a_folder_of_it_are_one_model(run, model, clips, tmp_path, capsys):
    expected = model.embed_video(clips[0])
    assert (expected == load(run).embed_video(clips[0])).all()
    assert export_command([f"--workdir={run}", f"--output={tmp_path / 'own'}"]) == 0
    assert "checkpoint " + load(run).checkpoint in capsys.readouterr().out
    exported = load(tmp_path / "own")
    assert exported.tokenization == load(run).tokenization == model.tokenization
    assert (expected == exported.embed_video(clips[0])).all()
    text = "a small red ring"
    assert (model.embed_text(text) == exported.embed_text(text)).all()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_space_is_nearly_the_same_model(run, model, clips, tmp_path, dtype):
    for name in (dtype, "float32"):
        export(run, tmp_path / name, dtype=name)
    small, large = ((tmp_path / n / "model.safetensors").stat().st_size for n in (dtype, "float32"))
    assert small < 0.6 * large
    narrow, wide = (one.embed_video(clips[0]) for one in (load(tmp_path / dtype), model))
    assert float(narrow @ wide) > 0.999 and (narrow != wide).any()


def test_a_run_that_cannot_be_exported_is_told(run, tmp_path, capsys):
    assert export_command([f"--workdir={tmp_path}", f"--output={tmp_path / 'a'}"]) == 2
    assert "holds neither a run nor weights" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    assert export_command([f"--workdir={run}", f"--output={tmp_path / 'full'}"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert export_command([f"--workdir={run}", f"--output={tmp_path / 'b'}", "--step=5"]) == 2
    assert "no checkpoint of step 5" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full"]


def test_what_is_no_model_is_told(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere is no folder .* and no shipped model"):
        load("nowhere")
    with pytest.raises(FileNotFoundError, match="holds neither a run nor weights"):
        load(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:999])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(broken)
    with pytest.raises(FileNotFoundError, match=r"config file .no\.py. does not exist"):
        load(folder, tokenization="no.py")


@pytest.mark.parametrize("noted", [None, "{", '{"source": "released program"}'])
def test_how_videos_are_cut_is_never_guessed_silently(folder, tmp_path, caplog, noted):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / TOKENIZATION).unlink()
    if noted is not None:
        (other / TOKENIZATION).write_text(noted)
    with caplog.at_level(logging.WARNING):
        model = load(other)
    assert "cut by the built-in tokenizer's defaults" in caplog.text
    assert model.tokenization.pipeline.frames == 4  # the model's
    caplog.clear()
    named = load(other, tokenization="configs/tokenization/classical.py:frames=99")
    assert not caplog.text and named.tokenization.pipeline.frames == 4


@pytest.mark.parametrize("told", [{}, {"discover": True}, {"discover": False}], ids=str)
def test_a_model_cuts_videos_as_it_was_noted_even_before_a_setting(folder, tmp_path, caplog, told):
    """Notes from before labels were joined say nothing of it."""
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    noted = dataclasses.asdict(ExtractSettings())
    del noted["pipeline"]["discover"], noted["pipeline"]["tubes"]
    noted["pipeline"] |= told
    (other / TOKENIZATION).write_text(to_json(noted))
    with caplog.at_level(logging.WARNING):
        settings = load(other).tokenization
    assert settings.pipeline.discover is told.get("discover", False)
    assert not caplog.text


def test_texts_need_a_vocabulary(folder, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "vocab.txt").unlink()
    with pytest.raises(ValueError, match="has no vocabulary"):
        load(other).embed_text("a")
    named = load(other, vocabulary=folder / "vocab.txt")
    assert (named.embed_text("a") == load(folder).embed_text("a")).all()


def test_an_encoder_alone_has_tokens(golden, clips, tmp_path):
    """The released program's checkpoints may hold no text side, and no projection."""
    golden("trajvit_tiny")  # or a skip that says where it is looked for
    goldens = Path(os.environ.get("TRAJVIT_GOLDENS", ROOT / "tests" / "goldens"))
    folder = tmp_path / "converted"
    assert (
        convert(
            [f"--from={goldens / 'trajvit_tiny.npz'}", f"--to={folder}", "--place=sd", "--heads=4"]
        )
        == 0
    )
    settings = json.loads((folder / "settings.json").read_text())
    settings["model"] |= {"frames": 2, "image_size": 64}
    (folder / "settings.json").write_text(json.dumps(settings))
    model = load(folder)
    made = model.encode(clips[0])
    assert made.embedding is None and len(made.tokens) == len(made.token_ids) > 0
    assert np.isfinite(made.cls).all()
    for call in (lambda: model.embed_video(clips[0]), lambda: model.index(clips)):
        with pytest.raises(ValueError, match="cannot embed videos: its weights lack project_video"):
            call()
    with pytest.raises(ValueError, match="cannot embed texts: its weights lack text"):
        model.embed_text("a")


def test_names_come_when_they_are_used():
    assert set(trajvit_jax.__all__) <= set(dir(trajvit_jax))
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        trajvit_jax.laod  # noqa: B018
    script = (
        "import sys, trajvit_jax\n"
        "print('jax' in sys.modules, callable(trajvit_jax.load), 'jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "True", "True"]
