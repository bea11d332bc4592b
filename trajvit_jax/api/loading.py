"""Where models come from: shipped ones by name, runs, and folders of weights."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path

import numpy as np

from tokenization.recorder import ExtractSettings, read_settings
from trajvit_jax import config as configs
from trajvit_jax.api.model import Model
from trajvit_jax.convert import stored
from trajvit_jax.convert.conversion import abstract_model
from trajvit_jax.convert.pieces import fill, paths
from trajvit_jax.evals import loaded
from trajvit_jax.experiment import TOKENIZATION
from trajvit_jax.models.settings import TextSettings
from trajvit_jax.models.video_text import VideoTextModel

_LOG = logging.getLogger(__name__)
_SHIPPED = Path(__file__).parent.parent / "pretrained"
_CARD = "README.md"
_NO_TEXT = TextSettings(vocabulary=4, length=2, positions=2, width=4, depth=1, heads=1, mlp=4)


def available() -> tuple[str, ...]:
    """Names of the models that come with this package."""
    return tuple(sorted(path.parent.name for path in _SHIPPED.glob(f"*/{stored.SETTINGS}")))


def load(
    path_or_name: str | os.PathLike[str],
    *,
    step: int | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    tokenization: str | ExtractSettings | None = None,
    threads: int | None = None,
    weights: str | None = None,
) -> Model:
    """Loads a model, with all that it needs to read videos and texts.

    Args:
      path_or_name: a name of `available()`; the --workdir of a run; or a folder that
        `python -m trajvit_jax.convert` or `python -m trajvit_jax.export` wrote. A folder that is
        called as a shipped model is named by a path: "./demo".
      step: of a run's checkpoint; None = the newest.
      vocabulary: a BERT vocab.txt; None = the folder's own, if it has one.
      tokenization: how the model's videos were cut: a config file, as
        "configs/tokenization/paper.py", or settings. None = as its records were made; where the
        folder does not tell, by the built-in tokenizer's defaults, with a warning.
      threads: videos that are read at once; None = one a processor, at most 4.
      weights: of a tokenizer that is a network; None = they are downloaded once, see
        `tokenization.backends.make`.

    Raises:
      FileNotFoundError: no such name, folder, checkpoint, vocabulary or config.
      ValueError: files that are damaged or do not belong together.
      OSError: storage that cannot be read.
    """
    folder = _find(path_or_name)
    found, missing = _read(folder, step, vocabulary)
    card = folder / _CARD
    return Model(
        found.model,
        name=os.fspath(path_or_name),
        text=found.text,
        tokenization=tokenization_of(folder, found.model.settings.name, tokenization),
        card=card.read_text("utf-8") if card.is_file() else "",
        missing=missing,
        threads=threads,
        weights=weights,
    )


def _find(given: str | os.PathLike[str]) -> Path:
    names = available()
    if given in names:
        return _SHIPPED / str(given)
    folder = Path(given)
    if not folder.exists():
        hint = configs.nearest(str(given), names) if names else "none are shipped"
        raise FileNotFoundError(
            f"{os.fspath(given)} is no folder (cwd {Path.cwd()}), and no shipped model: {hint}"
        )
    return folder


def _read(
    folder: Path, step: int | None, vocabulary: str | os.PathLike[str] | None
) -> tuple[loaded.Loaded, tuple[str, ...]]:
    """What the folder holds, and which parts of the model mean nothing because it lacks them."""
    if step is not None or not (folder / stored.WEIGHTS).is_file():
        return loaded.load(folder, step=step, vocabulary=vocabulary), ()
    missing = stored.missing_parts(folder)
    if not missing:
        return loaded.load(folder, vocabulary=vocabulary), ()
    if "tokenizer" in missing or "encoder" in missing:
        raise ValueError(
            f"{folder} lacks {', '.join(missing)} of a model: what reads videos must be there. "
            "trajvit_jax.convert.stored.initialize_from puts it into a model of yours"
        )
    return loaded.Loaded(_video_side(folder), None, str(folder)), missing


def _video_side(folder: Path) -> VideoTextModel:
    """The model of a folder without a text side: zeros, of which few are made, stand there."""
    found = stored.read_folder(folder)
    abstract = abstract_model(dataclasses.replace(found.settings, text=_NO_TEXT))
    shapes = paths(abstract)
    arrays = {name: np.zeros(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    own = {name: x for name, x in found.arrays.items() if not name.startswith("text.")}
    return fill(abstract, arrays | own)


def tokenization_of(
    folder: Path, name: str, given: str | ExtractSettings | None = None
) -> ExtractSettings:
    """How a model's videos were cut; with a warning where neither it nor its folder tells.

    Args:
      folder: of a run or of weights.
      name: of the model's tokenization.
      given: as in `load`.

    Raises:
      ValueError, OSError: a config or a note that cannot be read.
    """
    if isinstance(given, ExtractSettings):
        return given
    if given is not None:
        return configs.read(ExtractSettings, given, "tokenization.extract")
    noted = folder / TOKENIZATION
    if noted.is_file():
        try:
            return read_settings(json.loads(noted.read_text("utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            reason = f"{noted} is not of a program that cuts videos ({error})"
    else:
        reason = f"{folder} has no {TOKENIZATION}"
    if name == "trajvit":
        _LOG.warning(
            "%s: videos are cut by the built-in tokenizer's defaults, which may not be how the "
            "model's own were; load(..., tokenization=CONFIG) says how",
            reason,
        )
    return ExtractSettings()
