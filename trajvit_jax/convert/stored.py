"""Folders of converted weights: our names, the settings of the model, and the report.

DIR/model.safetensors   arrays by dotted path of `VideoTextModel`
DIR/settings.json       the model's settings, and how the arrays were named before
DIR/report.txt          what was used, missing and left over
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np

from trajvit_jax.config import nearest, to_settings
from trajvit_jax.convert.conversion import Converted, abstract_model, convert_back
from trajvit_jax.convert.files import read_state_dict, write_state_dict
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import fill, paths
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel

WEIGHTS, SETTINGS, REPORT = "model.safetensors", "settings.json", "report.txt"
# The released text side runs the first layers of a BERT, so a stack may be longer than needed.
_TEXT_LAYERS = "text.layers."


@dataclasses.dataclass(frozen=True)
class Stored:
    """What a folder holds.

    Attributes:
      arrays: by dotted path.
      settings: of the model they are of.
      layout: how they were named.
    """

    arrays: dict[str, np.ndarray]
    settings: ModelSettings
    layout: Layout


def write_folder(folder: str | os.PathLike[str], converted: Converted, *, source: str = "") -> None:
    """Writes a folder, whole or not at all.

    Args:
      folder: must not be there yet, or be empty.
      converted: what to write.
      source: what the report says of where it comes from.

    Raises:
      FileExistsError: a folder that holds something, or a file.
    """
    with _new_folder(Path(folder)) as partial:
        write_state_dict(partial / WEIGHTS, converted.arrays)
        settings = {
            "layout": dataclasses.asdict(converted.layout),
            "model": dataclasses.asdict(converted.settings),
        }
        (partial / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        lines = [source] if source else []
        (partial / REPORT).write_text("\n".join([*lines, *converted.lines()]) + "\n", "utf-8")


def check_new(folder: Path) -> None:
    """Raises FileExistsError if a folder holds something, or is a file."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already; remove it, or choose another folder")


def read_folder(folder: str | os.PathLike[str]) -> Stored:
    """Reads a folder.

    Raises:
      FileNotFoundError: it is not there, or not all of it.
      ValueError: it is damaged, or not of this program.
    """
    folder = Path(folder)
    path = folder / SETTINGS
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no {SETTINGS}: name a folder that python -m trajvit_jax.convert wrote"
        )
    try:
        stored = json.loads(path.read_text("utf-8"))
        settings = to_settings(ModelSettings, stored["model"], "model")
        layout = to_settings(Layout, stored["layout"], "layout")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({error}); convert the checkpoint again") from error
    return Stored(read_state_dict(folder / WEIGHTS), settings, layout)


def load_model(folder: str | os.PathLike[str]) -> VideoTextModel:
    """The video-text model of a folder.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a folder that holds only a part of a model.
    """
    stored = read_folder(folder)
    abstract = abstract_model(stored.settings)
    missing = sorted(set(paths(abstract)) - set(stored.arrays))
    if missing:
        parts = ", ".join(sorted({name.partition(".")[0] for name in stored.arrays}))
        raise ValueError(
            f"{folder} holds only {parts} of a model ({len(missing)} arrays are missing, among "
            f"them {missing[:3]}): make a model and pass it to initialize_from"
        )
    return fill(abstract, stored.arrays)


def initialize_from(
    model: VideoTextModel,
    folder: str | os.PathLike[str],
    *,
    parts: Collection[str] | None = None,
) -> VideoTextModel:
    """The model with the arrays of a folder in place of its own.

    A text side that runs fewer layers than the folder has takes the first of them.

    Args:
      model: stays as it is.
      folder: of a whole model or of a part.
      parts: which parts to take, by the beginnings of their dotted paths ("text",
        "tokenizer.appearance.backbone", "encoder.layers"); None = all there are.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: arrays that the model lacks or has in another shape, or a part that is not
        in the folder.
    """
    stored = read_folder(folder).arrays
    ours = paths(model)
    if parts is not None:
        stored = _take(stored, parts, folder)
    wrong = []
    for name, array in stored.items():
        if name not in ours:
            wrong.append(f"{name}: not in the model")
            continue
        shape = ours[name].shape
        if name.startswith(_TEXT_LAYERS) and len(array) > shape[0]:
            stored[name] = array = array[: shape[0]]
        if array.shape != shape:
            wrong.append(f"{name}: {list(array.shape)}, in the model {list(shape)}")
    if wrong:
        raise ValueError(
            f"{len(wrong)} of the {len(stored)} arrays of {folder} do not fit the model "
            f"({'; '.join(wrong[:3])}): make the model of the sizes in its {SETTINGS}, or choose "
            f"parts, of {', '.join(sorted({name.partition('.')[0] for name in stored}))}"
        )
    return fill(model, {**ours, **stored})


def write_back(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Writes a folder's arrays under the names they came from; returns how many.

    Raises:
      FileNotFoundError: no such folder.
      FileExistsError: the file is there.
      ValueError: a folder that is damaged or lacks arrays, or a suffix that cannot be written.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already; remove it, or choose another name")
    stored = read_folder(folder)
    theirs = convert_back(stored.arrays, stored.settings, stored.layout)
    write_state_dict(path, theirs)
    return len(theirs)


def _take(
    arrays: dict[str, np.ndarray], parts: Collection[str], folder: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
    taken = {}
    for part in parts:
        below = {n: a for n, a in arrays.items() if n == part or n.startswith(f"{part}.")}
        if not below:
            known = {name[:at] for name in arrays for at, c in enumerate(name) if c == "."}
            raise ValueError(f"{folder} has no part {part!r}; {nearest(part, known)}")
        taken |= below
    return taken


@contextlib.contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder beside `folder`; renames it if all went well, else removes it."""
    check_new(folder)
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.is_dir():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
