"""One update of the parameters, as one compiled program over all devices.

Its parts are named scopes, as are the model's, by which a profile tells their time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jaxtyping import Array, Float

from trajvit_jax.config import require_positive
from trajvit_jax.data.augment import AugmentSettings, augment, sample_keys
from trajvit_jax.data.batch import Batch
from trajvit_jax.losses import blockwise_contrastive_loss, clamp_temperature
from trajvit_jax.micro_batches import NormScope, embed_in_parts
from trajvit_jax.models.settings import ModelSettings, check_choice
from trajvit_jax.models.video_text import normalize_pixels, plain_slots
from trajvit_jax.models.video_tokens.rlt import rlt_dropped
from trajvit_jax.optim import updates_made
from trajvit_jax.state import TrainState

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]


@dataclasses.dataclass(frozen=True)
class StepSettings:
    """How an update is computed.

    Attributes:
      micro_batches: parts in which everything behind the backbone runs; the result is that of
        one part, with less memory and one more forward pass.
      norm_scope: 'batch', or 'part': the backbone, too, runs in micro-batches, and its
        normalization takes the statistics of each: another result, with less memory still.
      loss_block: rows of the matrix of all pairs that a device holds at a time.
      average_decay: of the moving average of the parameters, which is evaluated instead of
        them; 0 = none.
      augment: what happens to videos and label maps, or None: the loader resizes whole frames.

    Raises:
      ValueError: a count under 1, or a decay that is none.
    """

    micro_batches: int = 1
    norm_scope: NormScope = "batch"
    loss_block: int = 1024
    average_decay: float = 0.0
    augment: AugmentSettings | None = None

    def __post_init__(self) -> None:
        require_positive(self, "micro_batches", "loss_block")
        check_choice("step.norm_scope", self.norm_scope, get_args(NormScope))
        if not 0 <= self.average_decay < 1:
            raise ValueError(f"average_decay must be within 0..1, got {self.average_decay}")


def make_step(
    tx: optax.GradientTransformation,
    settings: StepSettings,
    model: ModelSettings,
    *,
    seed: int,
    where: TrainState | None = None,
    rate: optax.Schedule | None = None,
) -> Step:
    """The compiled update; the old state's memory is given to the new one.

    A loss or gradient that is not finite changes nothing but the step's number, and is told by
    the measure `skipped`. Samples that are not present count for nothing, and are told by `absent`.

    Args:
      tx: the optimizer.
      settings: of the step.
      model: whose sizes augmented videos get.
      seed: of the run: augmentation draws come from it, the sample and its epoch.
      where: the shardings of the state, which it keeps; None = on one device.
      rate: the optimizer's schedule, to tell the measure `learning_rate`: what the update was
        made with, by the optimizer's count, which lags behind the step's by those skipped.
    """

    def loss_of(
        params: nnx.State, state: TrainState, batch: Batch
    ) -> tuple[jax.Array, tuple[nnx.State, dict[str, jax.Array]]]:
        module = dataclasses.replace(state, params=params).model()
        video, text = embed_in_parts(
            module, batch, settings.micro_batches, norm_scope=settings.norm_scope
        )
        temperature = module.temperature[...]
        with jax.named_scope("loss"):
            loss, measures = blockwise_contrastive_loss(
                video,
                text,
                temperature,
                batch.caption_hash,
                batch.present,
                block=settings.loss_block,
            )
        measures["temperature"] = temperature
        return loss, (nnx.state(module, nnx.Not(nnx.Param)), measures)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, jax.Array]]:
        tokens = used_slots(batch, model)
        absent = 0 if batch.present is None else (~batch.present).sum()
        with jax.named_scope("augmentation"):
            batch = fed(batch, settings, model, seed)
        grad = jax.value_and_grad(loss_of, has_aux=True)
        (loss, (stats, measures)), gradients = grad(state.params, state, batch)
        with jax.named_scope("optimizer"):
            grad_norm = optax.global_norm(gradients)
            updates, opt_state = tx.update(gradients, state.opt_state, state.params)
            params: Any = optax.apply_updates(state.params, updates)
            params["temperature"][...] = clamp_temperature(params["temperature"][...])
            average = _averaged(state.average, params, settings.average_decay)
            new = dataclasses.replace(
                state, params=params, stats=stats, opt_state=opt_state, average=average
            )
            kept, told = if_finite(state, new, loss, grad_norm, rate)
        measures |= told
        measures |= {
            "dropped": dropped_tokens(batch, model),
            "tokens": tokens,
            "absent": jnp.asarray(absent),
        }
        return kept, measures

    return jax.jit(step, donate_argnums=0, out_shardings=None if where is None else (where, None))


def if_finite(
    old: TrainState,
    new: TrainState,
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    rate: optax.Schedule | None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """The state after a step: an update that is not finite changes nothing but the step's number.

    Args:
      old: the state before the update.
      new: after it.
      loss: of the batch.
      grad_norm: of the gradients.
      rate: the optimizer's schedule, or None.

    Returns:
      The state, and the measures `loss`, `grad_norm`, `skipped` (1 = nothing was changed) and,
      with a schedule, `learning_rate`.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    kept = jax.tree.map(lambda new, old: jnp.where(finite, new, old), new, old)
    measures = {
        "loss": loss,
        "grad_norm": grad_norm,
        "skipped": (~finite).astype(jnp.int32),
    }
    updates = updates_made(old.opt_state)
    if rate is not None and updates is not None:
        measures["learning_rate"] = jnp.asarray(rate(updates))
    return dataclasses.replace(kept, step=old.step + 1), measures


def used_slots(batch: Batch, model: ModelSettings) -> jax.Array:
    """Slots that the batch's videos take in their rows, CLS included."""
    if model.name != "trajvit":
        return jnp.asarray(len(batch.text) * plain_slots(model))
    if batch.rows is not None:
        return (batch.rows.video > 0).sum()
    return (
        1 + batch.labels.max(axis=(1, 2, 3)).astype(jnp.int32) * model.trajvit.tokens_each
    ).sum()


def dropped_tokens(batch: Batch, model: ModelSettings) -> jax.Array:
    """Tokens of the batch, as it enters the model, that have no slot in its rows.

    Of trajectories; and RLT's, which are chosen in the model. No other model drops any.
    """
    if model.name == "trajvit":
        return batch.dropped.sum()
    if model.name != "rlt":
        return jnp.zeros((), jnp.int32)
    video = normalize_pixels(batch.video) if batch.video.dtype == jnp.uint8 else batch.video
    return rlt_dropped(video.astype(model.dtype), model)


def fed(batch: Batch, settings: StepSettings, model: ModelSettings, seed: int) -> Batch:
    """The batch as it enters the model: cropped, coloured and normalized, where that is asked for.

    Args:
      batch: as it was read.
      settings: of the step.
      model: whose sizes videos get.
      seed: of the run.
    """
    if settings.augment is None:
        return batch
    video, labels = augment(
        batch.video,
        batch.labels,
        sample_keys(seed, batch.epoch, batch.sample),
        settings.augment,
        image_size=model.image_size,
        grid=model.grid,
    )
    return batch.replace(video=normalize_pixels(video), labels=labels)


def _averaged(average: Any, params: Any, decay: float) -> Any:
    if average is None:
        return None
    return jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, average, params)
