"""The two sides of `end_to_end`: how long TrajViT and ViT3D take for one video, on this CPU."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any, TypeVar

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float, Int32, UInt8

from benchmarks.parts.encoder_jax import Clip as ModelClip
from benchmarks.parts.encoder_jax import build, contender, forward, settings_of
from tokenization.pipeline import Pipeline
from tokenization.resizing import resize_labels
from tokenization.video import Frames
from trajvit_jax.models.settings import EncoderSettings
from trajvit_jax.models.tokens import same_video
from trajvit_jax.models.transformer import Layer
from trajvit_jax.models.video_text import VideoTextModel, normalize_pixels

T = TypeVar("T")

SLOTS = 64  # trajectories are padded to a multiple of this, as in a packed row
QUERIES = 1024  # read at once where attention is cut into chunks


@dataclasses.dataclass(frozen=True)
class Part:
    """One measured part of one side, for one number of frames.

    Attributes:
      way: how it was done.
      seconds: of each round.
      times: how often the whole has it: a single layer stands for all of them.
    """

    way: str
    seconds: tuple[float, ...]
    times: int = 1

    @property
    def total(self) -> float:
        """Median seconds, of all times."""
        return self.times * statistics.median(self.seconds)


def timed(run: Callable[[], T], rounds: int, *, warm: bool) -> tuple[tuple[float, ...], T]:
    """Seconds of each round, after one that does not count if `warm`; and the last result."""
    seconds = []
    for _ in range(rounds + warm):
        begin = time.perf_counter()
        found = run()
        seconds.append(time.perf_counter() - begin)
    return tuple(seconds[-rounds:]), found


def extracted(tokenizer: Pipeline, frames: Frames, grid: int) -> Int32[np.ndarray, "t y x"]:
    """What a model reads of a video's trajectories: label maps of a grid."""
    return resize_labels(tokenizer.tokenize(frames).labels.astype(np.int32), grid, grid)


def squashed(rgb: UInt8[np.ndarray, "t h w 3"], side: int) -> Float[np.ndarray, "1 t s s 3"]:
    """Normalized pixels of frames squashed to squares."""
    small = [cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in rgb]
    return np.asarray(normalize_pixels(jnp.asarray(np.stack(small)[None])))


class TrajViT:
    """Our TrajViT, its parameters made once for all numbers of frames.

    Args:
      encoder: the transformer's sizes.
      side: of frames, in pixels.
      dtype: what it computes in.
    """

    def __init__(self, encoder: EncoderSettings, side: int, dtype: str) -> None:
        self.way = f"ours, {dtype}"
        self._encoder, self._side, self._dtype = encoder, side, dtype
        self._state = nnx.state(build(self._settings(1, SLOTS)))

    def _settings(self, frames: int, trajectories: int) -> Any:
        shape = ModelClip(jnp.zeros((1, frames, self._side, 1, 1)), jnp.zeros((), jnp.int32))
        return settings_of(self._encoder, "trajvit", shape, trajectories, dtype=self._dtype)

    def seconds(
        self, pixels: np.ndarray, labels: Int32[np.ndarray, "t y x"], rounds: int, *, warm: bool
    ) -> Part:
        """Of the forward pass, compiled before."""
        slots = -(-int(labels.max()) // SLOTS) * SLOTS
        settings = self._settings(pixels.shape[1], slots)
        shape = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
        model = nnx.merge(nnx.split(shape)[0], self._state).for_cpu()
        inputs = (jnp.asarray(pixels, self._dtype), jnp.asarray(labels[None]))
        run = contender("forward", self.way, forward, model, *inputs).run
        return Part(self.way, timed(run, rounds, warm=warm)[0])


class TrajViTTorch:
    """The released formulation in PyTorch; its dense masks cost little beside bfloat16 layers."""

    def __init__(self, encoder: EncoderSettings, dtype: str) -> None:
        from benchmarks.parts import encoder_torch

        self.way = f"PyTorch, {dtype}"
        self._dtype = getattr(encoder_torch.torch, dtype)
        self._model = encoder_torch.trajvit(encoder).to(self._dtype)

    def seconds(
        self, pixels: np.ndarray, labels: Int32[np.ndarray, "t y x"], rounds: int, *, warm: bool
    ) -> Part:
        """Of the forward pass."""
        import torch

        video = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 1, 4, 2, 3)))
        ids = torch.from_numpy(labels[None].astype(np.int64))
        number = np.arange(1, int(labels.max()) + 1)
        seen = np.stack([np.isin(number, frame) for frame in labels], 1)
        graph = torch.from_numpy(np.where(seen, number[:, None], 0)[None])
        video = video.to(self._dtype)

        @torch.inference_mode()
        def run() -> None:
            self._model(video, ids, graph)

        return Part(self.way, timed(run, rounds, warm=warm)[0])


class ViT3DTorch:
    """ViT3D in PyTorch, whose fused attention never holds the scores.

    Args:
      encoder: the transformer's sizes.
      side: of frames, in pixels.
      most: frames, at most.
      dtype: what it computes in.
    """

    def __init__(self, encoder: EncoderSettings, side: int, most: int, dtype: str) -> None:
        from benchmarks.parts import encoder_torch

        self.way = f"PyTorch, fused attention, {dtype}"
        self._depth = encoder.depth
        self._dtype = getattr(encoder_torch.torch, dtype)
        model = encoder_torch.vit3d(encoder, frames=most, image_size=side)
        self._model = model.to(self._dtype)

    def _clip(self, pixels: np.ndarray) -> Any:
        import torch

        clip = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 4, 1, 2, 3)))
        return clip.to(self._dtype)

    def whole(self, pixels: np.ndarray, rounds: int, *, warm: bool) -> list[Part]:
        """Of the forward pass."""
        import torch

        clip = self._clip(pixels)

        @torch.inference_mode()
        def run() -> None:
            self._model(clip)

        return [Part(self.way, timed(run, rounds, warm=warm)[0])]

    def layer(self, pixels: np.ndarray, rounds: int, *, warm: bool) -> list[Part]:
        """Of the patches, and of one layer for all of them."""
        import torch

        with torch.inference_mode():
            clip = self._clip(pixels)
            tokens = self._model.embed(clip)
            first = self._model.encoder.layer[0]

            def embed() -> None:
                with torch.inference_mode():
                    self._model.embed(clip)

            def one() -> None:
                with torch.inference_mode():
                    first(tokens, None)

            return [
                Part(self.way, timed(embed, rounds, warm=warm)[0]),
                Part(self.way, timed(one, rounds, warm=warm)[0], times=self._depth),
            ]


class ViT3D:
    """Ours, where PyTorch is not installed; see `ViT3DTorch`."""

    def __init__(self, encoder: EncoderSettings, side: int, most: int, dtype: str) -> None:
        del most
        self.way = f"ours, {dtype}"
        self._encoder, self._side, self._dtype = encoder, side, dtype

    def _model(self, pixels: np.ndarray) -> VideoTextModel:
        labels = jnp.zeros((), jnp.int32)
        clip = ModelClip(jnp.zeros((1, pixels.shape[1], self._side, 1, 1)), labels)
        settings = settings_of(self._encoder, "vit3d", clip, 1, dtype=self._dtype)
        return build(settings).for_cpu()

    def _labels(self, pixels: np.ndarray) -> jax.Array:
        return jnp.zeros((1, pixels.shape[1], self._side // 4, self._side // 4), jnp.int32)

    def whole(self, pixels: np.ndarray, rounds: int, *, warm: bool) -> list[Part]:
        """Of the forward pass, with all scores of a layer in memory."""
        model, video = self._model(pixels), jnp.asarray(pixels, self._dtype)
        run = contender("forward", self.way, forward, model, video, self._labels(pixels)).run
        return [Part(self.way, timed(run, rounds, warm=warm)[0])]

    def layer(self, pixels: np.ndarray, rounds: int, *, warm: bool) -> list[Part]:
        """Of the patches, and of one layer for all of them, its attention in chunks."""
        model, video = self._model(pixels), jnp.asarray(pixels, self._dtype)

        def read(model: VideoTextModel, video: jax.Array) -> jax.Array:
            tokens, _ = model.tokenizer(video, self._labels(pixels), None, train=False)
            same_video(tokens)  # one video: all slots see each other, as the chunks have it
            return model.encoder.read(tokens)

        states = jax.jit(functools.partial(read, model))(video)
        embed = contender("forward", self.way, read, model, video).run
        run = contender("forward", self.way, in_chunks, model.encoder.layers[0], states).run
        return [
            Part(self.way, timed(embed, rounds, warm=warm)[0]),
            Part(
                f"{self.way}, attention in chunks",
                timed(run, rounds, warm=warm)[0],
                times=self._encoder.depth,
            ),
        ]


def in_chunks(layer: Layer, x: Float[jax.Array, "1 n d"]) -> Float[jax.Array, "1 n d"]:
    """A pre-norm layer that all slots go through, `QUERIES` of them reading at a time."""
    y = layer.norm_attention(x)
    query, key, value = jnp.moveaxis(
        layer.query_key_value(y).reshape(*x.shape[:2], 3, layer.heads, -1), 2, 0
    )
    spare = -query.shape[1] % QUERIES
    chunks = jnp.pad(query[0], ((0, spare), (0, 0), (0, 0)))
    chunks = chunks.reshape(-1, QUERIES, *query.shape[2:])
    read = jax.lax.map(lambda one: jax.nn.dot_product_attention(one[None], key, value)[0], chunks)
    out = read.reshape(1, -1, read.shape[-2] * read.shape[-1])[:, : x.shape[1]]
    return layer.think(x + layer.attention_out(out))


def has_torch() -> bool:
    """Whether the faster ViT3D can run here."""
    return importlib.util.find_spec("torch") is not None


def trajvits(encoder: EncoderSettings, side: int, dtype: str) -> list[TrajViT | TrajViTTorch]:
    """Every way to run TrajViT that may be the fastest; each is 1.2 GB of float32 for ViT-L."""
    torch = [TrajViTTorch(encoder, dtype)] if dtype != "float32" and has_torch() else []
    return [TrajViT(encoder, side, dtype), *torch]


def vit3d(encoder: EncoderSettings, side: int, most: int, dtype: str) -> ViT3DTorch | ViT3D:
    """The fastest ViT3D here."""
    return (ViT3DTorch if has_torch() else ViT3D)(encoder, side, most, dtype)
