"""One update of what is trained of a VideoLLM, as one compiled program over all devices."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import nnx, struct
from jaxtyping import Array, Bool, Int32, Integer, UInt8

from trajvit_jax.llm.loss import AnswerLoss, answer_loss
from trajvit_jax.llm.model import VideoLLM
from trajvit_jax.llm.sequences import Sequences
from trajvit_jax.models.tokens import Rows
from trajvit_jax.state import TrainState
from trajvit_jax.step import if_finite


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Talks:
    """What one step reads: conversations, and the videos and images that they are about.

    Attributes:
      video: RGB pixels, as many in each group, black where there is none.
      labels: trajectory of each cell, 0 = none; with `rows`, its first slot there.
      sequences: what the language model reads; rows belong to the groups of videos.
      dropped: trajectories of each one's videos that found no place.
      present: False where a video cannot be used: no token of its conversation is anywhere.
      unplaced: True where the conversation found no place in its group's rows; likewise.
      rows: that videos share in the encoder; None = one video a row.
    """

    video: UInt8[Array, "v t h w 3"]
    labels: Integer[Array, "v t y x"]
    sequences: Sequences
    dropped: Int32[Array, " b"]
    present: Bool[Array, " b"]
    unplaced: Bool[Array, " b"]
    rows: Rows | None = None


Step = Callable[[TrainState, nnx.State, Talks], tuple[TrainState, dict[str, jax.Array]]]


def run(model: VideoLLM, talks: Talks, *, groups: int, block: int, frozen_eyes: bool) -> AnswerLoss:
    """The loss of a batch's answers.

    Args:
      model: the VideoLLM.
      talks: the batch, or a part of whole groups.
      groups: that it has.
      block: see `answer_loss`.
      frozen_eyes: no gradient goes into the eyes.
    """
    seen = model.eyes(talks.video, talks.labels, talks.rows, groups=groups)
    if frozen_eyes:
        seen = jax.lax.stop_gradient(seen)
    states = model(talks.sequences, seen)
    return answer_loss(model.llm, states, talks.sequences, block=block)


def make_step(
    tx: optax.GradientTransformation,
    *,
    group: int,
    micro_batches: int = 1,
    block: int = 256,
    frozen_eyes: bool = True,
    where: TrainState | None = None,
    rate: optax.Schedule | None = None,
) -> Step:
    """The compiled update: `step(state, frozen, talks)`; the old state's memory is given away.

    `state.params` is what is trained and `frozen` all other arrays of the model, which
    `state.graph` puts together. The loss is the mean over all tokens of answers in the batch. One
    that is not finite, as a gradient, changes nothing but the step's number.

    Args:
      tx: the optimizer.
      group: conversations of a group.
      micro_batches: parts that are run one after the other, of whole groups each.
      block: see `answer_loss`.
      frozen_eyes: nothing of the eyes is trained.
      where: the shardings of the state, which it keeps; None = on one device.
      rate: the optimizer's schedule, to tell the measure `learning_rate`.
    """

    def nats(params: nnx.State, graph: Any, frozen: nnx.State, talks: Talks) -> Any:
        model = nnx.merge(graph, params, frozen, copy=True)
        groups = len(talks.present) // group
        found = run(model, talks, groups=groups, block=block, frozen_eyes=frozen_eyes)
        return found.nats, found

    def step(
        state: TrainState, frozen: nnx.State, talks: Talks
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        grad = jax.grad(nats, has_aux=True)

        def one(part: Talks) -> tuple[Any, AnswerLoss]:
            return grad(state.params, state.graph, frozen, part)

        groups = len(talks.present) // group
        sums, found = _in_parts(one, talks, groups, micro_batches)
        count = jnp.maximum(found.count, 1)
        gradients = jax.tree.map(lambda g: (g / count).astype(g.dtype), sums)
        loss, norm = found.nats / count, optax.global_norm(gradients)
        updates, opt_state = tx.update(gradients, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        new = dataclasses.replace(state, params=params, opt_state=opt_state)
        kept, measures = if_finite(state, new, loss, norm, rate)
        measures |= {
            "answer_accuracy": found.right / count,
            "answer_tokens": found.count,
            "dropped": talks.dropped.sum(),
            "tokens": (talks.sequences.segment > 0).sum(),
            "absent": (~talks.present).sum(),
            "unplaced": talks.unplaced.sum(),
        }
        return kept, measures

    return jax.jit(step, donate_argnums=0, out_shardings=None if where is None else (where, None))


def _in_parts(one: Callable[[Talks], Any], talks: Talks, groups: int, parts: int) -> Any:
    """Sums over parts of the batch's groups, one part after the other."""
    if parts == 1:
        return one(talks)

    def cut(x: jax.Array) -> jax.Array:
        # Part i takes groups i, i + parts, ..: some of each device's own, so that nothing moves.
        by_group = x.reshape(groups // parts, parts, len(x) // groups, *x.shape[1:])
        return jnp.swapaxes(by_group, 0, 1).reshape(parts, len(x) // parts, *x.shape[1:])

    cut_up = jax.tree.map(cut, talks)
    first = jax.eval_shape(one, jax.tree.map(lambda x: x[0], cut_up))
    zeros = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), first)

    def add(sums: Any, part: Talks) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, sums, one(part)), None

    return jax.lax.scan(add, zeros, cut_up)[0]
