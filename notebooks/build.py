"""Notebooks from their sources: Python files whose cells begin with `# %%`.

  python notebooks/build.py               # all: runs them top to bottom and keeps their outputs
  python notebooks/build.py 4_efficiency  # one of them
  python notebooks/build.py --bare        # without running

Edit source/NAME.py, never NAME.ipynb. `# %% [markdown]` begins a cell of text, each line behind
`# `. The badge leads to the address in CITATION.cff (`repository-code`), and to Colab's own page
while there is none.
"""

from __future__ import annotations

import base64
import io
import os
import re
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image

from tokenization.arguments import ArgumentParser

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent
NAMES = sorted(path.stem for path in (FOLDER / "source").glob("*.py"))
SECONDS = 300  # that a cell may take

_COLAB = "https://colab.research.google.com/"
_BADGE = "[![Open in Colab]({colab}assets/colab-badge.svg)]({target})"
_INSTALL = '''\
# Where the package is missing (Colab), it is installed from {source}.
import importlib.util
import subprocess
import sys

SOURCE = "{address}"
if importlib.util.find_spec("trajvit_jax") is None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", SOURCE]
    subprocess.run(install, check=True)'''


def repository() -> str:
    """Address of the repository, or '' while CITATION.cff names none."""
    text = (ROOT / "CITATION.cff").read_text("utf-8")
    found = re.search(r"^repository-code: *\"?([^\"\s]+)", text, re.M)
    return found[1].removesuffix(".git") if found else ""


def assemble(name: str) -> nbformat.NotebookNode:
    """The notebook of a source, without outputs."""
    address = repository()
    target = _COLAB
    if address.startswith("https://github.com/"):
        place = address.removeprefix("https://github.com/")
        target = f"{_COLAB}github/{place}/blob/main/notebooks/{name}.ipynb"
    badge = _BADGE.format(colab=_COLAB, target=target)
    install = _INSTALL.format(
        source="its repository" if address else "a clone that you bring there",
        address=f"trajvit_jax[demo,notebooks] @ git+{address}"
        if address
        else "/content/trajvit_jax[demo,notebooks]",
    )
    cells = []
    text = (FOLDER / "source" / f"{name}.py").read_text("utf-8")
    for number, part in enumerate(re.split(r"^# %%", text, flags=re.M)[1:]):
        head, _, body = part.partition("\n")
        body = body.strip("\n")
        if head.strip() == "[markdown]":
            body = re.sub(r"^# ?", "", body, flags=re.M)
            body = body if number else f"{badge}\n\n{body}"
            cells.append(nbformat.v4.new_markdown_cell(body))
        else:
            cells.append(nbformat.v4.new_code_cell(body))
        if not number:
            cells.append(nbformat.v4.new_code_cell(install))
    for number, cell in enumerate(cells):
        cell["id"] = f"cell-{number}"
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    language = {"name": "python"}
    return nbformat.v4.new_notebook(
        cells=cells, metadata={"kernelspec": kernel, "language_info": language}
    )


def run(notebook: nbformat.NotebookNode, folder: Path = FOLDER) -> nbformat.NotebookNode:
    """Runs all cells, in a folder; raises CellExecutionError where one fails."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    kernel_env = {**os.environ, "PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "2"}
    client = NotebookClient(
        notebook, timeout=SECONDS, kernel_name="python3", resources={"metadata": {"path": folder}}
    )
    client.execute(env=kernel_env)
    for cell in notebook.cells:
        cell.metadata = {}  # times of execution
        if cell.cell_type == "code":  # without bars and warnings
            cell.outputs = [out for out in cell.outputs if out.get("name") != "stderr"]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def _smaller(png: str) -> str:
    """The picture in 128 colours: a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(128)
    packed = io.BytesIO()
    picture.save(packed, "PNG", optimize=True)
    return base64.b64encode(packed.getvalue()).decode()


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--bare", action="store_true", help="do not run them")
    options = parser.parse_args(arguments)
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"no source of {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    for name in options.names:
        notebook = assemble(name)
        if not options.bare:
            run(notebook)
        path = FOLDER / f"{name}.ipynb"
        nbformat.write(notebook, path)
        print(f"{path.name}: {len(notebook.cells)} cells, {path.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
