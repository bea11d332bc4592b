"""What one forward pass costs, counted by XLA."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Tokens
from trajvit_jax.models.transformer import Encoder
from trajvit_jax.models.video_text import VideoTextModel


class NoFlopCount(RuntimeError):
    """No device is at hand for which XLA counts."""


@dataclasses.dataclass(frozen=True)
class ForwardCost:
    """FLOPs of embedding one video.

    Attributes:
      total: from pixels to the embedding.
      transformer: the encoder over all of the model's slots, and what is between its layers.
    """

    total: float
    transformer: float


def count_forward(settings: ModelSettings) -> ForwardCost:
    """XLA's cost analysis of the forward pass of one video, before it is optimized.

    Layers are unrolled for it: XLA counts the body of a loop once.

    Raises:
      NoFlopCount: as `count_flops`.
    """
    encoder = dataclasses.replace(settings.encoder, unroll=settings.encoder.depth)
    settings = dataclasses.replace(settings, encoder=encoder)
    model = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
    side, grid = settings.image_size, settings.grid
    # Videos that share rows are counted together: one alone would have a row of its own.
    b = settings.rlt.group if settings.name == "rlt" else 1
    video = jax.ShapeDtypeStruct((b, settings.frames, side, side, 3), jnp.uint8)
    labels = jax.ShapeDtypeStruct((b, settings.frames, grid, grid), jnp.int32)
    graph, state = nnx.split(model)

    def embed(state: nnx.State, video: jax.Array, labels: jax.Array) -> jax.Array:
        return nnx.merge(graph, state).embed_video(video, labels)

    def tokenize(state: nnx.State, video: jax.Array, labels: jax.Array) -> Tokens:
        model = nnx.merge(graph, state)
        return model.tokenizer(model.pixels(video), labels, train=False)[0]

    def encode(state: nnx.State, tokens: Tokens) -> jax.Array:
        model = nnx.merge(graph, state)
        return model.tokenizer.encode(model.encoder, tokens, b)[0]

    tokens = jax.eval_shape(tokenize, state, video, labels)
    whole = count_flops(embed, state, video, labels)
    return ForwardCost(whole / b, count_flops(encode, state, tokens) / b)


def count_embedding(
    settings: ModelSettings, inputs: tuple[Any, ...], text: tuple[Any, ...]
) -> float:
    """FLOPs of embedding a batch of videos and captions, as `count_forward` counts them.

    Args:
      settings: of the model.
      inputs: shapes of video, labels and rows (or None), as `embed_video` takes them.
      text: shapes of ids and mask, as `embed_text` takes them.
    """
    settings = dataclasses.replace(
        settings,
        encoder=dataclasses.replace(settings.encoder, unroll=settings.encoder.depth),
        text=dataclasses.replace(settings.text, unroll=settings.text.depth),
    )
    graph, state = nnx.split(nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0))))

    def videos(state: nnx.State, *inputs: Any) -> jax.Array:
        return nnx.merge(graph, state).embed_video(*inputs)

    def captions(state: nnx.State, *text: Any) -> jax.Array:
        return nnx.merge(graph, state).embed_text(*text)

    return count_flops(videos, state, *inputs) + count_flops(captions, state, *text)


def count_transformer(settings: ModelSettings, rows: int, slots: int) -> float:
    """FLOPs of the encoder's forward pass over full rows of slots, counted as above."""
    encoder = dataclasses.replace(settings.encoder, unroll=settings.encoder.depth)
    dtype = jnp.dtype(settings.dtype)
    module = nnx.eval_shape(lambda: Encoder(encoder, dtype=dtype, rngs=nnx.Rngs(0)))
    graph, state = nnx.split(module)
    place = jax.ShapeDtypeStruct((rows, slots), jnp.int32)
    values = jax.ShapeDtypeStruct((rows, slots, encoder.width), dtype)

    def encode(state: nnx.State, tokens: Tokens) -> jax.Array:
        return nnx.merge(graph, state)(tokens)

    return count_flops(encode, state, Tokens(values, place, place))


def count_flops(function: Callable[..., Any], *arguments: Any) -> float:
    """XLA's count of FLOPs of a function as it is written, before it is optimized.

    A loop's body counts once.

    Args:
      function: to be compiled.
      arguments: its arrays, or their shapes.

    Raises:
      NoFlopCount: JAX was told to do without CPUs, for which alone XLA counts so.
      ValueError: within a function that is being traced.
    """
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), arguments)
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError as error:
        raise NoFlopCount(
            "XLA counts FLOPs on CPUs alone, and JAX has none here; let JAX_PLATFORMS name them, "
            "too: JAX_PLATFORMS=cuda,cpu"
        ) from error
    # An ambient mesh would decide on the device.
    with jax.set_mesh(None), jax.default_device(cpu):
        return float(jax.jit(function).lower(*shapes).cost_analysis()["flops"])
