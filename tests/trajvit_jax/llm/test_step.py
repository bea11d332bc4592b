"""Updates: what is learned from, what is changed, and that neither parts nor padding matter."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.llama import without_adapters
from trajvit_jax.llm.lora import LoraSettings
from trajvit_jax.llm.loss import answer_loss
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.packing import RowSettings
from trajvit_jax.llm.parts import is_trained
from trajvit_jax.llm.step import make_step, run
from trajvit_jax.llm.talk_source import Reader, TalkSource
from trajvit_jax.llm.talks import talk_steps
from trajvit_jax.sharding import MeshSettings, make_mesh, put_batch
from trajvit_jax.state import TrainState

from .test_talks import talk

GROUP = 2


@pytest.fixture(scope="module")
def make(randomized, tiny, golden_settings):
    """A tiny VideoLLM with room for the tokenizer's ids."""

    def build(**changes):
        llm = dataclasses.replace(golden_settings["llama"], vocabulary=320, **changes)
        settings = VideoLLMSettings(tiny(), EyesSettings(), llm)
        return randomized(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))

    return build


@pytest.fixture
def read(tiny, toy_record, chat):
    """A batch of eight conversations in rows of some shape."""

    def load(rows=1, length=160):
        reader = Reader(tiny(), EyesSettings(), chat, RowSettings(GROUP, rows, length))
        source = TalkSource([talk(i) for i in range(8)], [toy_record(i) for i in range(8)], reader)
        return next(talk_steps(source, 8, seed=0)).batch

    return load


def split(model, parts):
    return nnx.split(model, is_trained(parts), ...)


def state_of(graph, params, tx):
    copied = jax.tree.map(jnp.copy, params)
    return TrainState(jnp.zeros((), jnp.int32), copied, nnx.State({}), tx.init(params), None, graph)


def test_loss_is_that_of_answers_alone(make, read):
    """By hand: every token of every answer, told by the state before it."""
    model, talks = make(), read()
    mesh = make_mesh(MeshSettings(), jax.devices()[:1])
    talks = put_batch(talks, mesh)
    found = nnx.jit(lambda m, t: run(m, t, groups=4, block=64, frozen_eyes=True))(model, talks)
    sequences = talks.sequences

    @nnx.jit
    def logits(model):
        seen = model.eyes(talks.video, talks.labels, groups=4)
        return model.llm.logits(model(sequences, seen))

    told = np.asarray(jax.nn.log_softmax(logits(model)))
    nats = right = count = 0
    for row, place in np.argwhere(np.asarray(sequences.target)):
        token = int(sequences.ids[row, place])
        nats -= told[row, place - 1, token]
        right += int(told[row, place - 1].argmax() == token)
        count += 1
    assert int(found.count) == count == sum(len(f"red {i}") + 1 for i in range(8))
    assert int(found.right) == right
    np.testing.assert_allclose(float(found.nats), nats, rtol=1e-5)


def test_blocks_of_the_loss_do_not_matter(make, read, assert_close):
    model, sequences = make(), read().sequences
    states = jax.random.normal(jax.random.key(0), (*sequences.ids.shape, 64))

    def gradient(block):
        loss = lambda states: answer_loss(model.llm, states, sequences, block=block).nats  # noqa: E731
        return jax.value_and_grad(loss)(states)

    assert_close(gradient(7), gradient(1000))
    # The likeliest token does not depend on what stands outside of answers.
    changed = jnp.where(jnp.roll(sequences.target, -1, 1)[..., None], states, 0)
    assert_close(
        answer_loss(model.llm, states, sequences).nats,
        answer_loss(model.llm, changed, sequences).nats,
    )


@pytest.mark.parametrize("parts", [("connector",), ("lora", "connector"), ("llm",), ("eyes",)])
def test_only_what_is_named_changes(make, read, parts):
    model = make(lora=LoraSettings(rank=2, alpha=4.0) if "lora" in parts else None)
    graph, params, frozen = split(model, parts)
    tops = {str(path[0]) for path, _ in nnx.to_flat_state(params)}
    assert tops == {"llm" if part == "lora" else part for part in parts}
    tx = optax.sgd(0.1)
    step = make_step(tx, group=GROUP, frozen_eyes="eyes" not in parts)
    state, measures = step(state_of(graph, params, tx), frozen, read())
    assert int(state.step) == 1 and float(measures["grad_norm"]) > 0
    changed = {
        path
        for path, leaf in nnx.to_flat_state(state.params)
        if not np.array_equal(leaf[...], dict(nnx.to_flat_state(params))[path][...])
    }
    if "lora" in parts:
        # At first only the second matrix has a gradient: the first is multiplied by its zeros.
        assert any(path[-1] == "lora_out" for path in changed)
        assert {path[-1] for path in changed} <= {"lora_in", "lora_out", "kernel", "bias"}
    assert changed and measures["answer_tokens"] > 0


def test_micro_batches_and_rows_give_the_same_update(make, read, assert_close):
    model = make()
    graph, params, frozen = split(model, ("connector",))
    tx = optax.sgd(0.1)

    def update(talks, **options):
        step = make_step(tx, group=GROUP, **options)
        state, measures = step(state_of(graph, params, tx), frozen, talks)
        return state.params, {name: measures[name] for name in ("loss", "grad_norm")}

    whole = update(read())
    assert_close(update(read(), micro_batches=4), whole)
    assert_close(update(read(rows=2, length=96)), whole)
    assert_close(update(read(length=200)), whole)


def test_a_step_that_is_not_finite_changes_nothing(make, read):
    graph, params, frozen = split(make(), ("connector",))
    tx = optax.sgd(0.1)
    before = state_of(graph, jax.tree.map(lambda x: x.at[0].set(jnp.inf), params), tx)
    kept = jax.tree.map(np.asarray, before.params)
    state, measures = make_step(tx, group=GROUP)(before, frozen, read())
    assert int(measures["skipped"]) == 1 and int(state.step) == 1
    jax.tree.map(np.testing.assert_array_equal, state.params, kept)


def test_a_connector_learns_a_batch(make, read):
    """Twenty steps bring the loss of one batch down."""
    graph, params, frozen = split(make(), ("connector",))
    tx = optax.adam(3e-2)
    step, state, talks = make_step(tx, group=GROUP), state_of(graph, params, tx), read()
    losses = []
    for _ in range(20):
        state, measures = step(state, frozen, talks)
        losses.append(float(measures["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert step._cache_size() == 1


def test_adapters_can_be_merged(make, assert_golden):
    """What was learned beside the matrices is the same inside them."""
    model = make(lora=LoraSettings(rank=3, alpha=6.0, targets=("query", "mlp_out"))).llm
    ids = jnp.arange(12)[None] % 90
    plain = jnp.ones((1, 12), jnp.int32), jnp.arange(12)[None]

    @nnx.jit
    def logits(llm):
        return llm.logits(llm(llm.embed(ids), *plain))

    merged = without_adapters(model)
    assert merged.settings.lora is None
    assert_golden(logits(merged), logits(model))
    bare = nnx.clone(model)
    for name in ("query", "mlp_out"):
        own = getattr(bare.layers, name)
        own.lora_out = nnx.Param(jnp.zeros_like(own.lora_out[...]))
    assert np.abs(logits(bare) - logits(model)).max() > 1e-2
    with pytest.raises(ValueError, match="'head' is none of query"):
        LoraSettings(targets=("head",))
