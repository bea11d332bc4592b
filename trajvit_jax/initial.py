"""Where a new run's parameters come from, if not from random numbers: weights, or another run.

The paper's image -> video transfer (§3.3, Table 11) is the case it is for: a ViT is trained on
images, and a ViT3D starts from its weights on videos (`convert.inflation`).
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.pieces import paths
from trajvit_jax.convert.stored import Stored, put_into, read_folder
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.evals.loaded import load
from trajvit_jax.experiment import has_run
from trajvit_jax.state import TrainState

VIDEO_SIDE = ("tokenizer", "encoder", "project_video")
_LOG = logging.getLogger(__name__)


def start_from(state: TrainState, folder: Path, text: WordPiece, *, mesh: Mesh) -> TrainState:
    """A state before its first step with the parameters of a folder in place of its own.

    Those of the text side, too, where the folder is a run whose vocabulary is this one's; what
    the folder lacks stays as it is, and a warning names it.

    Other than a run that is resumed, it holds all parameters of the folder (1.7 GB for ViT-L) at
    once on every host, and those of a run on every device, before each gets its share of them.

    Args:
      state: of a new run.
      folder: a run's workdir, whose newest checkpoint is taken, or one that
        `trajvit_jax.convert` wrote.
      text: the new run's vocabulary.
      mesh: where the state lies.

    Raises:
      FileNotFoundError: no such folder, or nothing in it.
      ValueError: weights of a model that does not fit this one.
    """
    if has_run(folder):
        stored, parts = _of_run(folder, text, mesh)
    else:
        stored, parts = read_folder(folder), None
    model = put_into(state.model(), stored, folder, parts=parts)
    _, params, stats = nnx.split(model, nnx.Param, ...)

    def placed(new: nnx.State, old: nnx.State) -> nnx.State:
        return jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), new, old)

    params = placed(params, state.params)
    average = None if state.average is None else jax.tree.map(jax.numpy.copy, params)
    _LOG.info("starts from %s", folder)
    return dataclasses.replace(
        state, params=params, stats=placed(stats, state.stats), average=average
    )


def _of_run(workdir: Path, text: WordPiece, mesh: Mesh) -> tuple[Stored, tuple[str, ...] | None]:
    """The newest arrays of a run, and which parts of them mean the same here."""
    found = load(workdir, mesh=mesh)
    # Whole on every device, so that every process has all of them.
    whole = jax.jit(lambda arrays: arrays, out_shardings=NamedSharding(mesh, PartitionSpec()))
    arrays = {name: np.asarray(value) for name, value in whole(paths(found.model)).items()}
    same = found.words().vocabulary == text.vocabulary
    if not same:
        _LOG.warning("%s has another vocabulary: its text side is not taken", workdir)
    stored = Stored(arrays, found.model.settings, Layout("run", whole=True))
    return stored, None if same else VIDEO_SIDE
