"""AdamW with masked decay, linear warm-up and cosine (paper, Table 7)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Defaults: the paper's recipe, where the warm-up is one epoch of 30.

    Attributes:
      final_fraction: the learning rate never falls under this part of its peak.
      warmup_fraction: part of all steps that the linear warm-up takes.
    """

    learning_rate: float = 1e-4
    weight_decay: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0
    warmup_fraction: float = 1 / 30
    final_fraction: float = 0.01


def schedule(settings: OptimizerSettings, steps: int) -> optax.Schedule:
    """Learning rate by step: linear from the floor to the peak, then cosine down to the floor."""
    warmup = round(settings.warmup_fraction * steps)
    floor = settings.final_fraction

    def rate(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        progress = jnp.clip((step - warmup) / max(1, steps - warmup), 0, 1)
        falling = 0.5 * (1 + jnp.cos(jnp.pi * progress))
        fraction = jnp.where(step < warmup, step / max(1, warmup), falling)
        return settings.learning_rate * jnp.maximum(floor, fraction)

    return rate


def decayed(params: object) -> object:
    """True for the parameters that weight decay shrinks: matrices and kernels.

    Layers are stacked, so a stacked bias has two axes: names decide, not the number of axes.
    """
    undecayed = ("bias", "scale", "cls", "query", "temperature")

    def is_decayed(path: tuple, _: jax.Array) -> bool:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        names = [name for name in names if name != "value"]
        return names[-1] not in undecayed

    return jax.tree_util.tree_map_with_path(is_decayed, params)


def optimizer(settings: OptimizerSettings, steps: int) -> optax.GradientTransformation:
    """Clip by global norm, then AdamW.

    Its schedule goes by its own count of updates (see `updates_made`), which a step that is not
    finite does not move: with every such step the learning rate lags one more step behind.
    """
    return optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            schedule(settings, steps),
            b1=settings.beta1,
            b2=settings.beta2,
            weight_decay=settings.weight_decay,
            mask=decayed,
        ),
    )


def updates_made(state: optax.OptState) -> jax.Array | None:
    """The count of updates that the schedule goes by; None for an optimizer without schedule."""
    found = jax.tree.leaves(state, is_leaf=_is_scheduled)
    return next((one.count for one in found if _is_scheduled(one)), None)


def _is_scheduled(state: object) -> bool:
    return isinstance(state, optax.ScaleByScheduleState)
