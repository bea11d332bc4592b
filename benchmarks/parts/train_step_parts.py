"""The parts of a training step as programs of their own, forward and backward."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.parts.timing import Contender
from trajvit_jax.data.augment import AugmentSettings, augment, sample_keys
from trajvit_jax.data.batch import Batch
from trajvit_jax.losses import blockwise_contrastive_loss
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.transformer import encode_rows
from trajvit_jax.models.video_text import VideoTextModel, normalize_pixels
from trajvit_jax.state import TrainState

STAGE = "part"


def parts(
    state: TrainState, tx: optax.GradientTransformation, batch: Batch, crops: AugmentSettings | None
) -> list[Contender]:
    """Every part of a step, fed with what it gets there, in the order of the step.

    They need not add up to the whole, in which XLA fuses across their borders; what the
    tokenizer's gradient gives the backbone passes through the memory twice.

    Args:
      state: of the training.
      tx: its optimizer.
      batch: on the device, as the step reads it.
      crops: the step's augmentation; None = it has none.
    """
    model = state.model()
    found = []
    if crops is not None:
        cropped = jax.jit(lambda batch: _cropped(batch, crops, model.settings))
        found.append(_contender("augmentation", cropped, batch))
        video, labels = cropped(batch)
        batch = batch.replace(video=video, labels=labels)
    pixels = jax.jit(model.pixels)(batch.video)
    videos, tokenizer = len(batch.text), model.tokenizer

    def features(tokenizer: Any, _: None, pixels: jax.Array) -> Any:
        return tokenizer.features(pixels, train=True)

    def tokens_of(tokenizer: Any, features: Any, *inputs: Any) -> Any:
        return tokenizer.tokens(features, *inputs)[0]

    maps = _run(features, tokenizer, None, pixels)
    if maps:
        found.append(_backward("backbone", features, tokenizer, None, pixels))
    inputs = (maps, pixels, batch.labels, batch.rows)
    found.append(_backward("tokens", lambda *x: tokens_of(*x).values, tokenizer, *inputs))
    tokens = _run(tokens_of, tokenizer, *inputs)

    def transformer(encoder: Any, values: jax.Array, tokens: Any) -> jax.Array:
        return encode_rows(encoder, tokens.replace(values=values), videos)

    found.append(_backward("transformer", transformer, model.encoder, tokens.values, tokens))

    def captions(text: Any, _: None, ids: jax.Array, mask: jax.Array) -> jax.Array:
        return text(ids, mask)[:, 0]

    found.append(_backward("text", captions, model.text, None, batch.text, batch.text_mask))
    found += [_loss(model, batch), _optimizer(state, tx)]
    return found


def _cropped(
    batch: Batch, settings: AugmentSettings, model: ModelSettings
) -> tuple[jax.Array, jax.Array]:
    keys = sample_keys(0, batch.epoch, batch.sample)
    sizes = {"image_size": model.image_size, "grid": model.grid}
    video, labels = augment(batch.video, batch.labels, keys, settings, **sizes)
    return normalize_pixels(video), labels


def _contender(name: str, program: Any, *arguments: Any) -> Contender:
    compiled = program.lower(*arguments).compile()
    memory = compiled.memory_analysis()
    return Contender(
        STAGE,
        name,
        lambda: jax.block_until_ready(compiled(*arguments)),
        memory=memory.temp_size_in_bytes if memory else None,
    )


def _run(function: Callable[..., Any], module: nnx.Module, *inputs: Any) -> Any:
    graph, state = nnx.split(module)
    program = jax.jit(lambda state, *inputs: function(nnx.merge(graph, state), *inputs))
    return program(state, *inputs)


def _backward(
    name: str, function: Callable[..., Any], module: nnx.Module, values: Any, *inputs: Any
) -> Contender:
    """Gradients of a number of `function(module, values, *inputs)` in parameters and values."""
    graph, params, rest = nnx.split(module, nnx.Param, ...)

    def number(params: nnx.State, values: Any, rest: nnx.State, inputs: tuple) -> jax.Array:
        found = function(nnx.merge(graph, params, rest, copy=True), values, *inputs)
        squares = [jnp.square(x.astype(jnp.float32)).mean() for x in jax.tree.leaves(found)]
        return jnp.stack(squares).sum()

    program = jax.jit(jax.value_and_grad(number, argnums=(0, 1)))
    return _contender(name, program, params, values, rest, inputs)


def _loss(model: VideoTextModel, batch: Batch) -> Contender:
    shape = (len(batch.text), model.settings.projection)
    vectors = [jax.random.normal(jax.random.key(seed), shape) for seed in range(2)]

    def loss(video: jax.Array, text: jax.Array, ids: jax.Array) -> jax.Array:
        return blockwise_contrastive_loss(video, text, jnp.asarray(0.07), ids)[0]

    program = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
    return _contender("loss", program, *vectors, batch.caption_hash)


def _optimizer(state: TrainState, tx: optax.GradientTransformation) -> Contender:
    def update(params: Any, opt_state: Any) -> Any:
        # Parameters in place of gradients: they have the same shapes.
        updates, opt_state = tx.update(params, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return _contender("optimizer", jax.jit(update), state.params, state.opt_state)
