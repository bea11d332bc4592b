"""Every file under configs/ is locked, imports little, and fits the settings it is for."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tokenization.extract import ExtractSettings
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.settings import ModelSettings

ROOT = Path(__file__).parent.parent / "configs"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
PARTS = {
    "demo.py": {"": ExperimentSettings},
    "models.py": {"model": ModelSettings},
    "tokenization/classical.py": {"": ExtractSettings},
    "tokenization/demo.py": {"world": WorldSettings, "extract": ExtractSettings},
    "tokenization/world_quality.py": {"world": WorldSettings},
}


@pytest.mark.parametrize("name", FILES)
def test_config_fits_its_settings(name):
    config = configs.load(str(ROOT / name))
    assert config.is_locked
    for part, kind in PARTS[name].items():
        assert isinstance(configs.to_settings(kind, config[part] if part else config), kind)


@pytest.mark.parametrize("name", FILES)
def test_config_imports_only_the_config_reader_and_settings(name):
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    modules = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    modules |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules <= {"__future__", "dataclasses", "ml_collections", "trajvit_jax.config"} | {
        "trajvit_jax.models.settings"
    }


def test_demo_arguments_reach_the_experiment():
    config = configs.load(f"{ROOT}/demo.py:model=vit3d,records=x,frames=16,trajectories=99,steps=7")
    settings = configs.to_settings(ExperimentSettings, config)
    assert (settings.model.name, settings.model.frames, settings.steps) == ("vit3d", 16, 7)
    assert settings.model.trajvit.max_trajectories == 99
    assert settings.data.train == settings.data.evaluation_folder == "x"
