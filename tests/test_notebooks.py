"""Notebooks are those of their sources, run top to bottom, and print what is committed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
NAMES = sorted(path.stem for path in (FOLDER / "source").glob("*.py"))
MOST = 500_000  # bytes of a committed notebook, outputs included

# Someone types into the search box and presses its button; then, what is seen below it.
_PRESS = """\
text, number = show.widget.kwargs_widgets
text.value, number.value = "a large red star spins", 1
show.widget.manual_button.click()"""
_LOOK = 'print(*(out["output_type"] for out in show.widget.out.outputs))'


@pytest.fixture(scope="module")
def build():
    """The script that makes them; a skip where its packages are missing."""
    for package in ("nbclient", "nbformat", "ipykernel", "ipywidgets", "matplotlib"):
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
def test_a_notebook_runs_top_to_bottom_in_any_folder(build, name, tmp_path):
    from nbformat import read, v4

    notebook = build.assemble(name)
    count = len(notebook.cells)
    if name == "2_search":
        notebook.cells += [v4.new_code_cell(_PRESS), v4.new_code_cell(_LOOK)]
    build.run(notebook, tmp_path)
    added = notebook.cells[count:]
    del notebook.cells[count:]
    changed = build.drift(read(FOLDER / f"{name}.ipynb", as_version=4), notebook)
    assert not changed, "\n".join([*changed, f"if it should: python notebooks/build.py {name}"])
    if added:
        assert [out.text for out in added[-1].outputs] == ["display_data\n"]


def test_drift_is_told_by_the_cell_and_not_of_rounding(build):
    from nbformat import v4

    def notebook(text, *tags):
        outputs = [v4.new_output("stream", text=text)]
        cell = v4.new_code_cell(outputs=outputs, metadata={"tags": list(tags)})
        return v4.new_notebook(cells=[v4.new_markdown_cell("text"), cell])

    def drift(committed, made, *tags):
        return build.drift(notebook(committed, *tags), notebook(made, *tags))

    assert drift("50 of them", "50 of them") == []
    assert drift("50 of them", "51 of them") == [
        "cell 1 is committed with '50 of them' and prints '51 of them'"
    ]
    assert drift("off by 3.3e-06", "off by 3.5e-06") == drift("by 0.0e+00", "by 1.1e-07") == []
    assert drift("off by 3.3e-06", "off by 3.3e-02")
    assert drift("R@1:  9%", "R@1: 12%", "scores") == []
    assert drift("R@1: 44%", "R@1: 54%", "scores") and drift("R@1: 4%", "R@5: 4%", "scores")
