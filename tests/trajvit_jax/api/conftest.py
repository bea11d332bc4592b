"""A model of random numbers with all that it needs to read files, and a few videos."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tokenization.manifest import read_manifest
from tokenization.recorder import ExtractSettings
from tokenization.records import to_json
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax.api import Model, load
from trajvit_jax.convert import stored
from trajvit_jax.convert.pieces import paths
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import TOKENIZATION

CUT = {
    "record_size": 48,
    "pipeline": {"frames": 4, "max_side": 64, "flow": {"between": 1}, "discover": True},
}


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> Path:
    """Manifest of five captioned clips of 8 frames."""
    folder = tmp_path_factory.mktemp("world")
    return write_split(folder, "test", 5, WorldSettings(width=64, height=64, frames=8))


@pytest.fixture(scope="session")
def clips(world) -> list[Path]:
    """Their files."""
    return [entry.path for entry in read_manifest(world)]


@pytest.fixture(scope="session")
def write_weights(tiny, random_model, world) -> Callable[..., Path]:
    """Writes a folder as `trajvit_jax.export` does."""

    def write(folder: Path, name: str = "trajvit", **changes: object) -> Path:
        captions = [caption for entry in read_manifest(world) for caption in entry.captions]
        text = WordPiece.train(captions, 12, size=64)
        settings = tiny(name, **changes)
        sized = dataclasses.replace(settings.text, vocabulary=len(text))
        settings = dataclasses.replace(settings, text=sized)
        arrays = {n: np.asarray(x) for n, x in paths(random_model(settings)).items()}
        texts = {"vocab.txt": "\n".join(text.vocabulary) + "\n", TOKENIZATION: to_json(CUT)}
        stored.write_stored(folder, stored.Stored(arrays, settings, stored.OWN), texts)
        return folder

    return write


@pytest.fixture(scope="session")
def folder(write_weights, tmp_path_factory) -> Path:
    """The folder of a TrajViT."""
    return write_weights(tmp_path_factory.mktemp("weights") / "own")


@pytest.fixture(scope="session")
def model(folder) -> Model:
    """Its model."""
    return load(folder, threads=2)


@pytest.fixture(scope="session")
def cut() -> ExtractSettings:
    """How its records are made."""
    from trajvit_jax.config import to_settings

    return to_settings(ExtractSettings, json.loads(to_json(CUT)))
