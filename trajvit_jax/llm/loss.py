"""What answers cost: cross entropy of their tokens alone, in blocks of a row."""

from __future__ import annotations

from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Float32, Int32

from trajvit_jax.llm.llama import Llama, logits_by
from trajvit_jax.llm.sequences import Sequences


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class AnswerLoss:
    """Sums over the tokens of answers.

    Attributes:
      nats: cross entropy.
      right: tokens that were the likeliest.
      count: tokens.
    """

    nats: Float32[Array, ""]
    right: Int32[Array, ""]
    count: Int32[Array, ""]


def answer_loss(
    llm: Llama, states: Float[Array, "r l d"], sequences: Sequences, *, block: int = 256
) -> AnswerLoss:
    """The loss of every answer's tokens, told by the states before them.

    Logits of a row of 4,096 tokens over 128,256 ids take 2 GB: they are made for `block` places
    of all rows at a time, and made again in the backward pass.

    Args:
      llm: whose head tells tokens.
      states: its states.
      sequences: what stood where.
      block: places of a row at once.
    """
    r, length = sequences.ids.shape
    block = min(block, length)
    blocks = -(-length // block)

    def cut(x: jax.Array) -> jax.Array:
        pad = [(0, 0), (0, blocks * block - length)] + [(0, 0)] * (x.ndim - 2)
        x = jnp.pad(x, pad).reshape(r, blocks, block, *x.shape[2:])
        return jnp.swapaxes(x, 0, 1)

    # A state tells the next token: ids move by one against states.
    ids = jnp.roll(sequences.ids, -1, axis=1)
    wanted = jnp.roll(sequences.target, -1, axis=1).at[:, -1].set(False)

    def one(part: tuple[jax.Array, jax.Array, jax.Array], kernel: jax.Array) -> AnswerLoss:
        states, ids, wanted = part
        logits = logits_by(kernel, states)
        told = jnp.take_along_axis(logits, ids[..., None], -1)[..., 0]
        nats = jax.nn.logsumexp(logits, -1) - told
        right = (logits.argmax(-1) == ids) & wanted
        return AnswerLoss(
            jnp.where(wanted, nats, 0).sum(),
            right.sum(dtype=jnp.int32),
            wanted.sum(dtype=jnp.int32),
        )

    kernel = llm.head_kernel

    @jax.checkpoint
    def add(sums: AnswerLoss, part: Any) -> tuple[AnswerLoss, None]:
        return jax.tree.map(jnp.add, sums, one(part, kernel)), None

    zero = jnp.zeros((), jnp.int32)
    sums = AnswerLoss(jnp.zeros((), jnp.float32), zero, zero)
    return jax.lax.scan(add, sums, (cut(states), cut(ids), cut(wanted)))[0]
