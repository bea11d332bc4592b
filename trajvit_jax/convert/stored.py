"""Folders of converted weights: our names, the settings of the model, and the report.

DIR/model.safetensors   arrays by dotted path of `VideoTextModel`
DIR/settings.json       the model's settings, and how the arrays were named before
DIR/report.txt          what was used, missing and left over
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from trajvit_jax.config import nearest, to_settings
from trajvit_jax.convert.compatibility import disagreements, is_below
from trajvit_jax.convert.conversion import Converted, abstract_model, convert_back
from trajvit_jax.convert.files import (
    check_suffix,
    read_names,
    read_state_dict,
    write_state_dict,
)
from trajvit_jax.convert.inflation import inflate, is_inflatable
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import fill, paths
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel

WEIGHTS, SETTINGS, REPORT = "model.safetensors", "settings.json", "report.txt"
# Of a model that was trained here, and never had other names.
OWN = Layout("own", whole=True)
# The released text side runs the first layers of a BERT, so a stack may be longer than needed.
_TEXT_LAYERS = "text.layers."
# What a folder is of, where it is not of a whole model.
_PARTS = {"resnet": ("tokenizer.appearance.backbone",), "bert": ("text",)}
_VIDEO_SIDE = ("tokenizer", "encoder")
_MOST_NAMES = 3
_LOG = logging.getLogger(__name__)


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

    @property
    def parts(self) -> tuple[str, ...]:
        """Dotted paths of what the folder is of."""
        if self.layout.whole:
            return tuple(dict.fromkeys(name.partition(".")[0] for name in self.arrays))
        return _PARTS.get(self.layout.kind, _VIDEO_SIDE)


def write_folder(folder: str | os.PathLike[str], converted: Converted, *, source: str = "") -> None:
    """Writes a folder, whole or not at all.

    Args:
      folder: must not be there yet, or be empty.
      converted: what to write.
      source: what the report says of where it comes from.

    Raises:
      FileExistsError: a folder that holds something, or a file.
      OSError: nothing can be written where it would be.
    """
    lines = [*([source] if source else []), *converted.lines()]
    stored = Stored(converted.arrays, converted.settings, converted.layout)
    write_stored(folder, stored, {REPORT: "\n".join(lines) + "\n"})


def write_stored(folder: str | os.PathLike[str], stored: Stored, texts: Mapping[str, str]) -> None:
    """Writes a folder, whole or not at all.

    Args:
      folder: must not be there yet, or be empty.
      stored: what `read_folder` will give.
      texts: other files by name.

    Raises:
      FileExistsError, OSError: as `write_folder`.
    """
    with _new_folder(Path(folder)) as partial:
        write_state_dict(partial / WEIGHTS, stored.arrays)
        settings = {
            "layout": dataclasses.asdict(stored.layout),
            "model": dataclasses.asdict(stored.settings),
        }
        for name, text in {SETTINGS: json.dumps(settings, indent=2) + "\n", **texts}.items():
            (partial / name).write_text(text, "utf-8")


def check_new(folder: str | os.PathLike[str]) -> None:
    """Checks that a folder can be made: before what takes minutes.

    Raises:
      FileExistsError: it holds something, or is a file.
      OSError: nothing can be written where it would be.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there already; remove it, or choose another folder")
    _check_place(folder)


def _check_place(path: Path) -> None:
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not parent.is_dir():
        raise NotADirectoryError(f"cannot write {path}: {parent} is a file; choose another place")
    try:
        tempfile.TemporaryFile(dir=parent).close()
    except OSError as error:
        reason = f"nothing can be written in {parent} ({error.strerror})"
        raise OSError(f"cannot write {path}: {reason}; choose another place") from error


def kind_of(folder: str | os.PathLike[str]) -> str:
    """Of which kind a folder's weights are, as `Layout` has it; '' where that cannot be read."""
    try:
        return str(json.loads((Path(folder) / SETTINGS).read_text("utf-8"))["layout"]["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_folder(folder: str | os.PathLike[str]) -> Stored:
    """Reads a folder.

    Raises:
      FileNotFoundError: it is not there, or not all of it.
      ValueError: it is damaged, or not of this program.
    """
    settings, layout = read_settings(folder)
    return Stored(read_state_dict(Path(folder) / WEIGHTS), settings, layout)


def read_settings(folder: str | os.PathLike[str]) -> tuple[ModelSettings, Layout]:
    """The settings of a folder's model, and how its arrays were named; see `read_folder`."""
    path = Path(folder) / SETTINGS
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
    return settings, layout


def missing_parts(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """Outermost parts of a model that a folder lacks some of: ("project_text", "text").

    No array is read.

    Raises:
      FileNotFoundError, ValueError: as `read_folder`.
    """
    settings, _ = read_settings(folder)
    missing = set(paths(abstract_model(settings))) - set(read_names(Path(folder) / WEIGHTS))
    return tuple(sorted({name.partition(".")[0] for name in missing}))


def load_model(folder: str | os.PathLike[str], *, rngs: nnx.Rngs | None = None) -> VideoTextModel:
    """The video-text model of a folder.

    Args:
      folder: of a whole model; with `rngs`, of a part of one too.
      rngs: draws what a folder of a part lacks; a warning names it. Of an encoder alone, the
        text side and both projections are random then: read `encode_video`, not `embed_video`.

    Raises:
      FileNotFoundError: no such folder.
      ValueError: a folder that holds only a part of a model, and no `rngs`.
    """
    stored = read_folder(folder)
    abstract = abstract_model(stored.settings)
    missing = sorted(set(paths(abstract)) - set(stored.arrays))
    if not missing:
        return fill(abstract, stored.arrays)
    if rngs is None:
        raise ValueError(
            f"{folder} holds only {_outermost(stored.arrays)} of a model ({len(missing)} arrays "
            f"are missing: {_brief(missing)}): load_model(folder, rngs=nnx.Rngs(0)) draws the "
            "others at random, and initialize_from(model, folder) puts these into a model of yours"
        )

    @nnx.jit  # so that what is not missing is not drawn
    def draw(rngs: nnx.Rngs) -> dict[str, jax.Array]:
        drawn = paths(VideoTextModel(stored.settings, rngs=rngs))
        return {name: drawn[name] for name in missing}

    _LOG.warning(
        "%s holds %s alone; random is what belongs to %s",
        folder,
        _outermost(stored.arrays),
        _outermost(missing),
    )
    return fill(abstract, {**stored.arrays, **draw(rngs)})


def initialize_from(
    model: VideoTextModel,
    folder: str | os.PathLike[str],
    *,
    parts: Collection[str] | None = None,
) -> VideoTextModel:
    """The model with the arrays of a folder in place of its own.

    The settings that a part's numbers depend on must be those of the folder, see
    `compatibility.DEPENDS`: `read_folder(folder).settings` has them all; but a model may read
    positions where the folder's reads none. What may differ is how programs run (dtype, impl,
    remat, unroll), how parameters started (init_std), how many trajectories or words there may be
    (max_trajectories, text.length), and how many layers the text side runs: fewer than the folder
    has are its first. With dtype the rounding differs.

    An image ViT's arrays fit a model of tubelets, too: see `inflation`.

    A warning names arrays inside the parts that the folder lacks: they stay as they are. So does
    all that is in no part, of which nothing is said.

    Args:
      model: stays as it is.
      folder: of a whole model or of a part.
      parts: which parts to take, by the beginnings of their dotted paths ("text",
        "tokenizer.appearance.backbone", "encoder.layers"); None = all there are. What decides
        how a part is used, and not what it is, is only compared where all of that is taken:
        `encoder.passes` for "encoder", not for "encoder.layers".

    Raises:
      FileNotFoundError: no such folder.
      ValueError: arrays that the model lacks or has in another shape, settings that give them
        another meaning, or parts that are not in the folder.
    """
    return put_into(model, read_folder(folder), folder, parts=parts)


def put_into(
    model: VideoTextModel,
    stored: Stored,
    folder: str | os.PathLike[str],
    *,
    parts: Collection[str] | None = None,
) -> VideoTextModel:
    """`initialize_from` with what was read of a folder, which messages name."""
    ours = paths(model)
    arrays = stored.arrays if parts is None else _take(stored.arrays, parts, folder)
    parts = stored.parts if parts is None else parts
    settings, wrong = stored.settings, []
    if is_inflatable(settings, model.settings):
        arrays, settings = inflate(arrays, settings, model.settings)
    for name, array in arrays.items():
        if name not in ours:
            wrong.append(f"{name}: not in the model")
            continue
        shape = ours[name].shape
        if name.startswith(_TEXT_LAYERS) and len(array) > shape[0]:
            arrays[name] = array = array[: shape[0]]
        if array.shape != shape:
            wrong.append(f"{name}: {list(array.shape)}, in the model {list(shape)}")
    problems = disagreements(settings, model.settings, parts, arrays)
    if wrong:
        problems.append(f"{len(wrong)} of {len(arrays)} arrays: {_brief(wrong, '; ')}")
    if problems:
        raise ValueError(
            f"{folder} does not fit the model ({'; '.join(problems)}): make the model of "
            f"read_folder({str(folder)!r}).settings, or choose parts, of "
            f"{_outermost(stored.arrays)}"
        )
    left = [n for n in ours if n not in arrays and any(is_below(n, part) for part in parts)]
    if left:
        _LOG.warning(
            "%s lacks %d arrays, which stay as they are: %s", folder, len(left), _brief(left)
        )
    return fill(model, {**ours, **arrays})


def _outermost(names: Collection[str]) -> str:
    return ", ".join(sorted({name.partition(".")[0] for name in names}))


def _brief(names: list[str], separator: str = ", ") -> str:
    more = len(names) - _MOST_NAMES
    return separator.join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "")


def write_back(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> int:
    """Writes a folder's arrays under the names they came from; returns how many.

    Raises:
      FileNotFoundError: no such folder.
      FileExistsError: the file is there.
      OSError: nothing can be written where it would be.
      ValueError: a folder that is damaged or lacks arrays, or a suffix that cannot be written.
    """
    if Path(path).exists():
        raise FileExistsError(f"{path} is there already; remove it, or choose another name")
    check_suffix(path)
    _check_place(Path(path))
    stored = read_folder(folder)
    theirs = convert_back(stored.arrays, stored.settings, stored.layout)
    write_state_dict(path, theirs)
    return len(theirs)


def _take(
    arrays: dict[str, np.ndarray], parts: Collection[str], folder: str | os.PathLike[str]
) -> dict[str, np.ndarray]:
    if isinstance(parts, str):
        raise ValueError(f"parts must be a list of names, not a text: parts=[{parts!r}]")
    if not parts:
        raise ValueError(f"parts is empty: name some of {_outermost(arrays)}; None takes all")
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
