"""Notebooks are those of their sources, and run top to bottom."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in (FOLDER / "source").glob("*.py"))
MOST = 500_000  # bytes of a committed notebook, outputs included


@pytest.fixture(scope="module")
def build():
    """The script that makes them; a skip where its packages are missing."""
    for package in ("nbclient", "nbformat", "ipykernel", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed; it comes with the extra `notebooks`")
    spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_that_of_its_source(build, name):
    import nbformat

    committed = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    made = build.assemble(name)
    told = f"edit source/{name}.py, then python notebooks/build.py {name}"
    assert [cell.source for cell in committed.cells] == [c.source for c in made.cells], told
    outputs = [out for cell in committed.cells for out in cell.get("outputs", ())]
    assert outputs and not any(out.output_type == "error" for out in outputs)
    text = (FOLDER / f"{name}.ipynb").read_text("utf-8")
    assert len(text) < MOST and "/tmp/" not in text and str(FOLDER.parent) not in text
    assert "image/png" in text and "colab-badge.svg" in made.cells[0].source


def test_badges_lead_to_the_repository_once_it_has_an_address(build, monkeypatch):
    monkeypatch.setattr(build, "repository", lambda: "https://github.com/someone/trajvit_jax")
    badge, install = build.assemble(NAMES[0]).cells[:2]
    place = f"github/someone/trajvit_jax/blob/main/notebooks/{NAMES[0]}.ipynb"
    assert f"(https://colab.research.google.com/{place})" in badge.source
    assert "git+https://github.com/someone/trajvit_jax" in install.source
    monkeypatch.setattr(build, "repository", lambda: "")
    badge, install = build.assemble(NAMES[0]).cells[:2]
    assert "git+" not in install.source and "/content/trajvit_jax" in install.source


@pytest.mark.notebook
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_top_to_bottom(build, name):
    notebook = build.run(build.assemble(name))
    pictures = [
        out
        for cell in notebook.cells
        for out in cell.get("outputs", ())
        if "image/png" in out.get("data", {})
    ]
    assert pictures
