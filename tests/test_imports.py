"""Importing is light, and arrows between the packages run one way."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HEAVY = ("jax", "flax", "torch", "tensorflow")
LIGHT = (
    "trajvit_jax",
    "trajvit_jax.config",
    "trajvit_jax.convert.files",
    "trajvit_jax.demo.__main__",
    "trajvit_jax.demo.token_options",
    "trajvit_jax.evals.options",
    "trajvit_jax.embed",
    "trajvit_jax.export",
    "trajvit_jax.pretrained",
    "tokenization.trajectories",
    "tokenization.protocols",
    "tokenization.arguments",
    "tokenization.records",
    "tokenization.record_source",
    "tokenization.shard_notes",
    "tokenization.video",
    "tokenization.keyframes",
    "tokenization.linking",
    "tokenization.pipeline",
)
EXTRACTION = ("tokenization.pipeline", "tokenization.extract", "tokenization.explore.__main__")
TORCH = ("torch", "torchvision", "transformers", "sam2")


def python(script, *arguments):
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_contracts_are_light():
    """None of them loads an array framework; each is blamed for what it brings itself."""
    script = (
        "import importlib, sys\n"
        f"heavy = {HEAVY}\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "    for name in heavy:\n"
        "        if name in sys.modules:\n"
        "            sys.exit(print(f'{module} imports {name}'))\n"
    )
    present = [module for module in LIGHT if find_spec(module)]
    assert "tokenization.trajectories" in present
    assert python(script, *present) == ""


def test_trajectories_need_numpy_only():
    script = "import sys, tokenization.trajectories\nprint('cv2' in sys.modules)"
    assert python(script).strip() == "False"


def test_extraction_needs_no_torch():
    """A None in `sys.modules` makes every import of that name fail, installed or not."""
    script = (
        "import importlib, sys\n"
        f"sys.modules.update(dict.fromkeys({TORCH}))\n"
        "for module in sys.argv[1:]:\n"
        "    importlib.import_module(module)\n"
        "print('imported')\n"
    )
    assert python(script, *EXTRACTION).strip() == "imported"


def test_import_contracts():
    """The arrows that pyproject.toml draws for import-linter."""
    command = shutil.which("lint-imports", path=Path(sys.executable).parent)
    if command is None:
        pytest.skip("import-linter is not installed; it comes with the extra `test`")
    done = subprocess.run(
        [command, "--no-cache", "--no-logo"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
