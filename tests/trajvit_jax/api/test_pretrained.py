"""The shipped demo model: it is small, says what it is, and finds clips of its world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import trajvit_jax
from tokenization.engines.inline import InlineEngine
from tokenization.extract import extract
from tokenization.manifest import Entry, read_manifest
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.api import available, load, loading
from trajvit_jax.data.source import open_records
from trajvit_jax.evals.retrieval import compare
from trajvit_jax.experiment import ExperimentSettings

ROOT = Path(__file__).parents[3]
FOLDER = loading._SHIPPED / "demo"


@pytest.fixture(scope="module")
def demo():
    return trajvit_jax.load("demo")


@pytest.fixture(scope="module")
def entries(tmp_path_factory) -> list[Entry]:
    """Clips of the world it learned from, of another seed and with captions it never saw."""
    folder = tmp_path_factory.mktemp("world")
    manifest = write_split(folder, "test", 16, WorldSettings(frames=8, max_objects=2), seed=7)
    return read_manifest(manifest)


def test_it_is_small_and_has_a_card(demo):
    assert available() == ("demo",) and demo.card.startswith("# ")
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 20e6
    for word in ("Data", "Recipe", "Numbers", "Limits", demo.checkpoint):
        assert word in demo.card


def test_its_config_makes_it(demo):
    made = configs.to_settings(
        ExperimentSettings, configs.load(f"{ROOT}/configs/pretrained_demo.py")
    )
    own = demo.settings
    assert (made.model.encoder, made.model.trajvit) == (own.encoder, own.trajvit)
    assert (made.model.frames, made.model.image_size) == (own.frames, own.image_size)
    assert f"{made.steps} steps" in demo.card
    cut = configs.load(f"{ROOT}/configs/tokenization/pretrained_demo.py")
    assert cut.record_size == demo.tokenization.record_size
    for name, value in cut.pipeline.items():
        own = getattr(demo.tokenization.pipeline, name)
        values = value.items() if hasattr(value, "items") else ()
        assert own == value or all(getattr(own, key) == one for key, one in values)


def test_files_of_the_world_are_embedded_as_in_evaluation(demo, entries, tmp_path):
    extract(entries[:4], tmp_path, demo.tokenization, split="test", engine=InlineEngine())
    compared = compare(demo.module, open_records(tmp_path, "test"), demo.text, batch=4)
    found = demo.similarity([entry.path for entry in entries[:4]], compared.texts, batch=4)
    np.testing.assert_allclose(found, compared.similarity, atol=1e-5)


def test_search_finds_the_right_clips(demo, entries):
    index = demo.index([entry.path for entry in entries])
    ranks = []
    for entry in entries:
        hits = demo.search(entry.captions[0], index, k=len(entries))
        ranks.append([hit.path for hit in hits].index(str(entry.path)) + 1)
    # By chance one in sixteen would be first.
    assert np.mean(np.array(ranks) == 1) >= 0.5 and np.mean(np.array(ranks) <= 4) >= 0.8


def test_a_folder_of_its_name_is_named_by_a_path(tmp_path, monkeypatch):
    (tmp_path / "demo").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("demo").name == "demo"
    with pytest.raises(FileNotFoundError, match=r"demo holds neither a run nor weights"):
        load("./demo")
    with pytest.raises(FileNotFoundError, match=r"no shipped model: did you mean 'demo'\?"):
        load("dmeo")
