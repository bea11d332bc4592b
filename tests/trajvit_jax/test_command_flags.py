"""Commands that read a config: a wrong flag is one line, and a missing one teaches."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from trajvit_jax.models.settings import FED_TRAJVIT, NAMES

ROOT = Path(__file__).parents[2]
MODELS = "--config=configs/models.py"


def command(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    line = [sys.executable, "-m", "trajvit_jax.models.summary", *arguments]
    return subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (
            ["--config=configs/model.py"],
            "config file 'configs/model.py' does not exist; did you mean 'configs/models.py'?",
        ),
        (["--config", "configs"], "config file 'configs' is a folder; did you mean 'configs/"),
        (["--config=README.md"], "config file 'README.md' is no Python file; known: configs/"),
        ([MODELS, "--config.model.encoder.head=8"], "names no setting 'head'; Did you mean \"he"),
        ([MODELS, "--config.model.encoder.heads=7"], "7 heads do not divide a width of 1024"),
        ([f"{MODELS}:sise=B"], "unknown config argument 'sise': did you mean 'size'?"),
        ([MODELS, "--confg=3"], "Unknown command line flag 'confg'. Did you mean: config ?"),
        (["--config=configs/tokenization/classical.py"], "no model; take configs/models.py"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, reason):
    done = command(*arguments)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert reason in line and "Traceback" not in done.stderr + done.stdout


def test_an_argument_that_is_no_flag():
    done = command(MODELS, "extra")
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert "unknown argument 'extra'; settings are --config.NAME=VALUE" in done.stdout + done.stderr


def test_without_a_config_it_has_one_where_that_is():
    """With as many trajectories as the paper's figure is made of here; other flags count."""
    few = ("--models=trajvit", "--frames=2", "--config.model.encoder.depth=1")
    done = command(*few)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows] == ["model", "trajvit"] and rows[1][2:4] == ["2", "151"]


@pytest.mark.slow
def test_without_a_config_it_is_the_table_of_all_models():
    done = command("--frames=2", "--config.model.encoder.depth=1")
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {*NAMES, *FED_TRAJVIT}


def test_without_a_config_where_there_is_none_it_teaches(tmp_path):
    done = command(folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "error: --config is missing, and there is no configs/models.py here: name a config, "
        "or run this where that is\n"
    )
    assert f"python -m trajvit_jax.models.summary {MODELS}" in done.stderr
    assert "Traceback" not in done.stderr


def test_help_lists_the_arguments_and_the_ablations():
    done = command("--help")
    assert done.returncode == 0
    spec = importlib.util.spec_from_file_location("models_config", ROOT / "configs/models.py")
    config = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(config)
    listed = done.stdout.replace(",", " ").split()
    names = [*config.ABLATIONS, *config.SIZES, "trajectories", "frames", "dtype", "impl"]
    assert [name for name in names if name not in listed] == []
