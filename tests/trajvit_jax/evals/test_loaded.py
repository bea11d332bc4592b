"""What an evaluation loads is what a run saved, and what is none is told."""

from __future__ import annotations

import json
import re
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.convert.conversion import Converted
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import paths
from trajvit_jax.convert.report import Report
from trajvit_jax.convert.stored import SETTINGS, write_folder
from trajvit_jax.evals.loaded import hash_of, load, with_frames


@pytest.fixture(scope="module")
def weights(runs, tmp_path_factory):
    """The model of a run as a folder of weights."""
    model = load(runs("vit3d")).model
    arrays = {name: np.asarray(x) for name, x in paths(model).items()}
    layout = Layout(kind="vit3d", whole=True)
    folder = tmp_path_factory.mktemp("weights") / "own"
    write_folder(folder, Converted(layout, model.settings, arrays, Report()))
    return folder


def test_a_run_comes_back_with_its_vocabulary(runs, random_model):
    found = load(runs("vit3d"))
    assert (found.step, found.seed, found.source) == (6, 3, str(runs("vit3d")))
    assert found.model.settings.text.vocabulary == len(found.words())
    expected = random_model(found.model.settings)
    jax.tree.map(np.testing.assert_array_equal, nnx.state(found.model), nnx.state(expected))


def test_weights_have_the_hash_of_the_run_that_they_are_from(runs, weights):
    found, run = load(weights), load(runs("vit3d"))
    assert found.checkpoint == run.checkpoint and len(run.checkpoint) == 16
    assert (found.step, found.seed, found.text) == (None, None, None)
    run.model.temperature.set_value(run.model.temperature[...] + 1e-6)
    assert hash_of(run.model) != found.checkpoint


def test_captions_are_cleaned_where_the_weights_were_trained_so(runs, weights, tmp_path):
    folder, vocabulary = tmp_path / "own", runs("vit3d") / "vocab.txt"
    shutil.copytree(weights, folder)
    path = folder / SETTINGS
    told = json.loads(path.read_text("utf-8"))
    told["model"]["text"]["cleaning"] = "released"
    path.write_text(json.dumps(told), "utf-8")
    one, other = (load(of, vocabulary=vocabulary).words() for of in (weights, folder))
    given, cleaned = ["A light, red square!"], ["a light red square"]
    np.testing.assert_array_equal(other(given).ids, one(cleaned).ids)
    assert (one(given).ids != one(cleaned).ids).any()


def test_weights_without_a_vocabulary_read_no_captions(runs, weights, tmp_path):
    with pytest.raises(ValueError, match=r"has no vocab\.txt.*--vocabulary=FILE"):
        load(weights).words()
    named = load(weights, vocabulary=runs("vit3d") / "vocab.txt")
    assert named.words().vocabulary == load(runs("vit3d")).words().vocabulary
    long = tmp_path / "long.txt"
    pieces = [*named.words().vocabulary, *(f"piece{i}" for i in range(99))]
    long.write_text("\n".join(pieces) + "\n")
    with pytest.raises(ValueError, match="another vocabulary"):
        load(weights, vocabulary=long)


def test_what_is_no_model_is_told(runs, weights, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere does not exist: name the --workdir"):
        load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds neither a run nor weights"):
        load(tmp_path)
    with pytest.raises(FileNotFoundError, match="no checkpoint of step 5"):
        load(runs("vit3d"), step=5)
    with pytest.raises(ValueError, match="leave out --step=5"):
        load(weights, step=5)


def test_a_checkpoint_of_another_architecture_is_told(runs, tmp_path):
    workdir = tmp_path / "run"
    shutil.copytree(runs("vit3d"), workdir)
    noted = json.loads((workdir / "settings.json").read_text())
    noted["model"]["encoder"]["width"] = 48
    (workdir / "settings.json").write_text(json.dumps(noted))
    with pytest.raises(ValueError, match=re.escape("does not fit this config's model")):
        load(workdir)
    noted["model"]["encoder"]["wdith"] = 48
    (workdir / "settings.json").write_text(json.dumps(noted))
    with pytest.raises(ValueError, match=r"settings\.json cannot be read.*did you mean 'width'"):
        load(workdir)
    (workdir / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings\.json cannot be read"):
        load(workdir)


def test_other_numbers_of_frames(runs):
    model = load(runs("vit3d")).model
    assert with_frames(model, 8).settings.frames == 8 and model.settings.frames == 4
    with pytest.raises(ValueError, match="multiples of 2 frames, not 7"):
        with_frames(model, 7)
