"""A model to evaluate, from whatever holds one: a run's workdir, or a folder of weights."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.convert import stored
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.experiment import ExperimentSettings, has_run, read_settings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.optim import optimizer
from trajvit_jax.run.checksums import checksums
from trajvit_jax.sharding import MeshSettings, make_mesh, shardings
from trajvit_jax.state import TrainState

VOCABULARY = "vocab.txt"


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """A model, and what a result must say of it.

    Attributes:
      model: in evaluation form: averaged parameters where the run kept an average.
      text: its vocabulary, or None where the folder has none: then it reads no captions.
      source: the folder it is from.
      step: updates made; None = not a run of this program.
      seed: of its training; None = not a run of this program.
      settings: of the whole run; None = not a run of this program.
    """

    model: VideoTextModel
    text: WordPiece | None
    source: str
    step: int | None = None
    seed: int | None = None
    settings: ExperimentSettings | None = None

    @functools.cached_property
    def checkpoint(self) -> str:
        """Hash of all the model's numbers: equal wherever and however they are stored."""
        return hash_of(self.model)

    def words(self) -> WordPiece:
        """The vocabulary.

        Raises:
          ValueError: there is none.
        """
        if self.text is None:
            raise ValueError(
                f"{self.source} has no {VOCABULARY}, and captions cannot be read without it: name "
                "the vocabulary it was trained with by --vocabulary=FILE"
            )
        return self.text


def load(
    folder: str | os.PathLike[str],
    *,
    step: int | None = None,
    vocabulary: str | os.PathLike[str] | None = None,
    mesh: Mesh | None = None,
) -> Loaded:
    """Loads a model of any tokenization.

    Args:
      folder: workdir of a run, or a folder that `trajvit_jax.convert` wrote.
      step: of a run's checkpoint; None = the newest.
      vocabulary: a BERT vocab.txt; None = the one in the folder, if there is one.
      mesh: of the devices that the arrays go to; None = the first device.

    Raises:
      FileNotFoundError: the folder holds neither, or no such checkpoint.
      ValueError: files that are damaged or do not belong together, or a vocabulary with more
        pieces than the model.
      OSError: storage that cannot be read.
    """
    folder = Path(folder)
    if (folder / stored.WEIGHTS).is_file():
        return _load_weights(folder, step, vocabulary, mesh)
    if not has_run(folder):
        what = "does not exist" if not folder.exists() else "holds neither a run nor weights"
        raise FileNotFoundError(
            f"{folder} {what}: name the --workdir of python -m trajvit_jax.main, or a folder that "
            "python -m trajvit_jax.convert wrote"
        )
    settings = read_settings(folder)
    own = settings.model.text
    text = WordPiece.load(vocabulary or folder / VOCABULARY, own.length, own.cleaning)
    sized = dataclasses.replace(own, vocabulary=len(text))
    # One device reads a run of any mesh: the arrays are the same.
    one = MeshSettings(data=1)
    like = TrainState.shapes(
        dataclasses.replace(settings.model, text=sized),
        optimizer(settings.optimizer, settings.steps),
        mesh=make_mesh(one, jax.devices()[:1]) if mesh is None else mesh,
        averaged=settings.step.average_decay > 0,
    )
    with Checkpoints(folder, read_only=True) as checkpoints:
        state = checkpoints.restore(like, step)
    return Loaded(
        state.best_model(), text, str(folder), int(state.step), settings.seed, settings=settings
    )


def _load_weights(
    folder: Path,
    step: int | None,
    vocabulary: str | os.PathLike[str] | None,
    mesh: Mesh | None,
) -> Loaded:
    if step is not None:
        raise ValueError(f"{folder} holds converted weights, no run: leave out --step={step}")
    model = stored.load_model(folder)
    kept, own = folder / VOCABULARY, model.settings.text
    path = vocabulary or (kept if kept.is_file() else None)
    text = None if path is None else WordPiece.load(path, own.length, own.cleaning)
    if text is not None and len(text) > model.settings.text.vocabulary:
        raise ValueError(
            f"{path} has {len(text)} pieces, the model of {folder} embeds "
            f"{model.settings.text.vocabulary}: it was trained with another vocabulary"
        )
    return Loaded(model if mesh is None else _on_mesh(model, mesh), text, str(folder))


def _on_mesh(model: VideoTextModel, mesh: Mesh) -> VideoTextModel:
    """The same model, its arrays where those of a run would lie."""
    graph, state = nnx.split(model)

    def put(x: jax.Array, where: NamedSharding) -> jax.Array:
        own = np.asarray(x)
        return jax.make_array_from_callback(own.shape, where, lambda index: own[index])

    return nnx.merge(graph, jax.tree.map(put, state, shardings(state, mesh)))


def hash_of(model: VideoTextModel) -> str:
    """16 hexadecimal digits of all parameters and statistics, by name and value."""
    noted = json.dumps(checksums(nnx.to_pure_dict(nnx.state(model))), sort_keys=True)
    return hashlib.sha256(noted.encode()).hexdigest()[:16]


def with_frames(model: VideoTextModel, frames: int) -> VideoTextModel:
    """The same model, to be given videos of another number of frames.

    Rotary positions go on, and tables of time steps are stretched, as the tokenizations do.

    Raises:
      ValueError: a number of frames that the model cannot read.
    """
    settings = dataclasses.replace(model.settings, frames=frames)
    check_frames(settings)
    graph, state = nnx.split(model)
    changed = nnx.merge(graph, state)
    changed.settings = settings
    return changed


def check_frames(settings: ModelSettings) -> None:
    """Raises ValueError for a number of frames that the tokenization cannot read."""
    name, frames, tubelet = settings.name, settings.frames, settings.vit3d.tubelet
    if name == "vit" and frames != 1:
        raise ValueError(f"vit reads images, one frame, not {frames}")
    if name not in ("trajvit", "automerge", "vit") and frames % tubelet:
        raise ValueError(f"{name} reads multiples of {tubelet} frames, not {frames}")
