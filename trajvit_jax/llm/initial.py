"""Where what a new run trains comes from, if not from random numbers: an earlier run.

The case it is for is LLaVA's second stage (Liu et al., 2023): a connector is trained alone, then
together with adapters or the language model, on other conversations.
"""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import jax
from flax import nnx
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.experiment import has_run, read_settings
from trajvit_jax.llm import parts
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.optim import optimizer
from trajvit_jax.sharding import shardings
from trajvit_jax.state import TrainState

_LOG = logging.getLogger(__name__)


def check_initial(settings: VideoLLMExperiment) -> VideoLLMExperiment:
    """The settings of the run `settings.initial`, which another run can start from.

    Raises:
      FileNotFoundError: no run there, or one without a checkpoint.
      ValueError: one that trained what this one does not, whose checkpoints would lack it, or that
        read other states of the encoder, or had other adapters.
    """
    folder = Path(settings.initial)
    if not has_run(folder):
        raise FileNotFoundError(
            f"initial={settings.initial!r} holds no checkpoint of python -m trajvit_jax.llm.teach "
            f"(cwd {Path.cwd()})"
        )
    try:
        earlier = read_settings(folder, VideoLLMExperiment)
    except ValueError as error:
        raise ValueError(
            f"initial={settings.initial!r} is no run of python -m trajvit_jax.llm.teach ({error}); "
            "a video encoder's is given as weights.video"
        ) from error
    if lost := [part for part in earlier.train if part not in settings.train]:
        raise ValueError(
            f"initial={settings.initial!r} has trained {', '.join(lost)}, which the checkpoints of "
            f"this run would lack: train {', '.join(earlier.train)} here, too"
        )
    both = {"eyes": (earlier.eyes, settings.eyes)}
    if earlier.llm.lora is not None:
        both["llm.lora"] = (earlier.llm.lora, settings.llm.lora)
    for name, (there, here) in both.items():
        if there != here:
            raise ValueError(
                f"initial={settings.initial!r} was trained with {name}={there}, this run has "
                f"{here}: take the same"
            )
    return earlier


def start_from(
    state: TrainState, settings: VideoLLMExperiment, *, between: str, mesh: Mesh
) -> TrainState:
    """A state before its first step with all that the run `settings.initial` trained.

    Args:
      state: of a new run.
      settings: of it.
      between: fingerprint of the models that it is trained between (`parts.fingerprint`).
      mesh: where the state lies.

    Raises:
      FileNotFoundError: as `check_initial` does.
      ValueError: likewise, or a run that was trained between other models.
    """
    folder, earlier = Path(settings.initial), check_initial(settings)
    parts.check_made_of(folder, settings.weights, between)
    own, rest = nnx.split_state(state.params, parts.is_trained(earlier.train), ...)
    with Checkpoints(folder, read_only=True) as checkpoints:
        found = checkpoints.resume(_as_saved(state, own, earlier, mesh))
    if found is None:
        raise FileNotFoundError(f"{folder} has no whole checkpoint")
    _LOG.info("starts from step %d of %s: %s", found.step, folder, ", ".join(earlier.train))
    if found.step < earlier.steps:
        _LOG.warning("%s is not finished: %d steps of %d", folder, found.step, earlier.steps)
    return dataclasses.replace(state, params=nnx.merge_state(found.state.params, rest))


def _as_saved(
    state: TrainState, params: nnx.State, earlier: VideoLLMExperiment, mesh: Mesh
) -> TrainState:
    """Shapes of the earlier run's state, whose optimizer may have been another."""
    shapes = jax.eval_shape(optimizer(earlier.optimizer, earlier.steps).init, params)
    opt_state = jax.tree.map(
        lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at),
        shapes,
        shardings(shapes, mesh),
    )
    return dataclasses.replace(state, params=params, opt_state=opt_state)
