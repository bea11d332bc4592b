"""Notebooks from their sources: Python files whose cells begin with `# %%`.

  python notebooks/build.py               # all: runs them top to bottom and keeps their outputs
  python notebooks/build.py 4_efficiency  # one of them
  python notebooks/build.py --bare        # without running

Edit source/NAME.py, never NAME.ipynb. `# %% [markdown]` begins a cell of text, each line behind
`# `. The badge leads to the address in CITATION.cff (`repository-code`), and to Colab's own page
while there is none.

What the notebooks print must stay what is committed (`make test-notebooks`), but for two kinds of
numbers that are not the same on every processor: rounding errors (written 1.2e-06), and those of
cells that begin `# %% [scores]`, which may be a few clips off: see `drift`.
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
SCORES = "scores"  # tag of cells whose percentages a processor's rounding may tip
POINTS = 6  # that a score may be off: two of 36 clips, four of 72

_WIDGET = "application/vnd.jupyter.widget-view+json"
_ROUNDING = re.compile(r"\d(\.\d+)?e-(0[4-9]|[1-9]\d)|0\.0e\+00")  # none above 1e-03
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?=%| to )|(?<= to )\d+(?:\.\d+)?")  # shares, intervals

_COLAB = "https://colab.research.google.com/"
_BADGE = "[![Open in Colab]({colab}assets/colab-badge.svg)]({target})"
_INSTALL = """\
# Where the package is missing (Colab), it is installed from {source}.
import importlib.util
import subprocess
import sys

SOURCE = "{address}"
if importlib.util.find_spec("trajvit_jax") is None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", SOURCE]
    subprocess.run(install, check=True)"""


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
            if head.strip() == f"[{SCORES}]":
                cells[-1].metadata["tags"] = [SCORES]
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
        cell.metadata.pop("execution", None)  # its times
        if cell.cell_type == "code":  # without bars, warnings, and boxes that nothing is behind
            cell.outputs = [
                out
                for out in cell.outputs
                if out.get("name") != "stderr" and _WIDGET not in out.get("data", {})
            ]
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                data["image/png"] = _smaller(data["image/png"])
    notebook.metadata.pop("widgets", None)  # states of those boxes
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def drift(committed: nbformat.NotebookNode, made: nbformat.NotebookNode) -> list[str]:
    """What a notebook prints other than it is committed, a line a cell; empty if nothing.

    Pictures count by their number, sizes and axes.
    """
    lines = []
    for number, (old, new) in enumerate(zip(committed.cells, made.cells, strict=True)):
        off = POINTS if SCORES in new.metadata.get("tags", ()) else 0
        before, after = _printed(old), _printed(new)
        if not _alike(before, after, off):
            lines.append(f"cell {number} is committed with {before!r} and prints {after!r}")
    return lines


def _printed(cell: nbformat.NotebookNode) -> str:
    """The texts of a cell's outputs, without rounding errors."""
    outputs = cell.get("outputs", ())
    texts = [out.get("text") or out.get("data", {}).get("text/plain", "") for out in outputs]
    return _ROUNDING.sub("(rounding)", "".join(texts))


def _alike(one: str, other: str, off: float) -> bool:
    """Whether two texts are the same, but for numbers that are at most so far off."""
    if one == other or not off:
        return one == other
    if _NUMBER.sub("0", one).split() != _NUMBER.sub("0", other).split():
        return False
    pairs = zip(_NUMBER.findall(one), _NUMBER.findall(other), strict=True)
    return all(abs(float(a) - float(b)) <= off for a, b in pairs)


def _smaller(png: str) -> str:
    """The picture in 256 colours: a third of the bytes."""
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    # Pillow's default (median cut) leaves none for what is small: orange stars came out red.
    picture = picture.quantize(256, method=Image.Quantize.FASTOCTREE)
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
