"""The second half alone: a connector in front of the frozen language model, and perfect eyes.

Each object of a scene is one token that says what is true of it, a one of 25 numbers for each
word. What a connector learns of these it may learn of a clip's tokens; what it does not, it hardly
learns of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Float
from tqdm import tqdm

from benchmarks.parts.videollm_halves import by_kind, held_out_questions, is_answered, load_text
from benchmarks.parts.videollm_places import merged
from benchmarks.parts.videollm_questions import (
    Asked,
    Fact,
    choose,
    conversation,
    facts,
    questions,
    scenes,
)
from tokenization.world.scenes import COLOURS, SHAPES, SIZES, WorldSettings
from trajvit_jax.llm.llama import Llama, positions_in
from trajvit_jax.llm.loss import answer_loss
from trajvit_jax.llm.sequences import Sequences, Spread, rows_of, spread
from trajvit_jax.llm.tokenizer import ChatTokenizer
from trajvit_jax.optim import OptimizerSettings, optimizer

_WORDS = ((*COLOURS,), SHAPES, SIZES, ("left", "right", "up", "down", "spins", "rests"), (0, 1))
WIDTH = sum(map(len, _WORDS))
_MOST = 8  # objects of a scene at most: three before a cut and three behind it
_LENGTH = 96  # tokens of a conversation at most
_TURNS = 4


class Batch(NamedTuple):
    """Conversations, one a row, and the facts of each one's objects."""

    sequences: Sequences
    facts: Float[np.ndarray, "b n f"]


def one_hot(known: Sequence[Fact]) -> Float[np.ndarray, "n f"]:
    """What is true of each object; zeros fill up to as many as a scene may have."""
    made = np.zeros((_MOST, WIDTH), np.float32)
    for row, fact in enumerate(known):
        start = 0
        for words, own in zip(
            _WORDS, (fact.colour, fact.shape, fact.size, fact.way, fact.shot), strict=True
        ):
            made[row, start + words.index(own)] = 1
            start += len(words)
    return made


def _talk(known: Sequence[Fact], asked: Sequence[Asked], chat: ChatTokenizer) -> Spread:
    text = conversation("oracle", "<video>", asked, ("scene",))
    return spread(chat.encode(text), [np.arange(len(known), dtype=np.int32)])


def batches(
    world: WorldSettings, chat: ChatTokenizer, *, count: int, size: int, seed: int
) -> Iterator[Batch]:
    """Endless conversations about so many scenes of the training split."""
    source, rng = scenes("train", world, seed=seed + 1), np.random.default_rng([seed, 4])
    told = tqdm(range(count), "scenes of facts", unit="scene", delay=5)
    pool = [own for own in (facts(next(source)) for _ in told) if questions(own)]
    while True:
        chosen = [pool[int(i)] for i in rng.integers(len(pool), size=size)]
        talks = [_talk(own, choose(questions(own), rng, _TURNS), chat) for own in chosen]
        yield Batch(rows_of([[talk] for talk in talks], _LENGTH), np.stack([*map(one_hot, chosen)]))


def ask_by_facts(
    text: Path,
    world: WorldSettings,
    *,
    scenes: int,
    steps: int,
    batch: int,
    held_out: int,
    most: int,
    seed: int,
) -> dict[str, tuple[int, int]]:
    """Right answers about held-out scenes, by kind, once a connector was trained on facts.

    Args:
      text: folder of the language model, which stays as it is.
      world: that scenes are of.
      scenes: to train on.
      steps: of the connector.
      batch: conversations of a step.
      held_out: scenes that are asked about.
      most: questions of a kind.
      seed: of everything.
    """
    model, chat = load_text(text)
    connector = nnx.Linear(WIDTH, model.settings.width, rngs=nnx.Rngs(seed))
    schedule = OptimizerSettings(
        learning_rate=1.5e-2, beta2=0.98, weight_decay=0.0, warmup_fraction=0.05
    )
    tx = optimizer(schedule, steps)
    graph, params = nnx.split(connector)
    step, opt_state = _step(graph, model, tx), tx.init(params)
    source = batches(world, chat, count=scenes, size=batch, seed=seed)
    with tqdm(total=steps, desc="connector of facts", unit="step", mininterval=1) as bar:
        for number, read in zip(range(steps), source, strict=False):
            params, opt_state, loss, right = step(params, opt_state, read)
            bar.update()
            if number % 20 == 0:
                bar.set_postfix(loss=f"{float(loss):.3f}", right=f"{float(right):.1%}")
    asked = held_out_questions(world, count=held_out, most=most, seed=seed)
    talks = [_talk(known, [one], chat) for known, one in asked]
    tokens = nnx.merge(graph, params)(jnp.stack([one_hot(known) for known, _ in asked]))
    return by_kind([one for _, one in asked], is_answered(model, talks, np.asarray(tokens)))


def _step(graph: nnx.GraphDef, model: Llama, tx: optax.GradientTransformation):
    own, frozen = nnx.split(model)

    def loss(params: nnx.State, frozen: nnx.State, batch: Batch):
        model, segments = nnx.merge(own, frozen, copy=True), batch.sequences.segment
        x = merged(model, batch.sequences, nnx.merge(graph, params)(batch.facts))
        states = model(x, segments, positions_in(segments, segments > 0))
        found = answer_loss(model, states, batch.sequences)
        count = jnp.maximum(found.count, 1)
        return found.nats / count, found.right / count

    @jax.jit
    def step(params: nnx.State, opt_state: optax.OptState, frozen: nnx.State, batch: Batch):
        (value, right), gradient = jax.value_and_grad(loss, has_aux=True)(params, frozen, batch)
        updates, opt_state = tx.update(gradient, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, value, right

    return lambda params, opt_state, batch: step(params, opt_state, frozen, batch)
