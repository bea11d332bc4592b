"""Tiny models and records; compiled programs are kept for the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tokenization.records import Record
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
    ViT3DSettings,
)
from trajvit_jax.models.video_text import VideoTextModel

FRAMES, SIZE, SLOTS = 4, 32, 6
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (90,) * 3}
SIDES = {"left": 0, "right": SIZE // 2}
SHADES = {"light": 40, "dark": 0}


@pytest.fixture(scope="session", autouse=True)
def quick_compilation(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiles without optimizations, and every program once a session."""
    jax.config.update("jax_disable_most_optimizations", True)
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., ModelSettings]:
    """Settings of a model that compiles in seconds."""

    def make(name: str = "trajvit", **changes: Any) -> ModelSettings:
        sizes = {
            "image_size": SIZE,
            "frames": FRAMES,
            "projection": 16,
            "encoder": EncoderSettings(width=32, depth=2, heads=2, mlp=64),
            "trajvit": TrajViTSettings(
                max_trajectories=SLOTS, resnet=ResNetSettings(8, (8, 16), (1, 1))
            ),
            "vit3d": ViT3DSettings(patch=16, tubelet=2),
            "text": TextSettings(vocabulary=64, length=12, width=32, depth=2, heads=2, mlp=64),
        }
        return ModelSettings(name=name, **(sizes | changes))

    return make


@pytest.fixture(scope="session")
def random_model() -> Callable[[ModelSettings], VideoTextModel]:
    """A model with random numbers in every parameter and statistic, made without compiling."""

    def fill(rng: np.random.Generator, path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
        values = rng.normal(size=leaf.shape)
        if name in ("scale", "var"):
            values = rng.uniform(0.5, 1.5, leaf.shape)
        elif name == "kernel":
            values *= np.prod(leaf.shape[-4:-1] if len(leaf.shape) == 4 else leaf.shape[-2]) ** -0.5
        elif name in ("bias", "cls", "query", "position"):
            values *= 0.1
        elif name == "temperature":
            values = np.full(leaf.shape, 0.07)
        return jax.numpy.asarray(values, leaf.dtype)

    def make(settings: ModelSettings) -> VideoTextModel:
        rng = np.random.default_rng(0)
        shapes = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
        graph, state = nnx.split(shapes)
        filled = jax.tree_util.tree_map_with_path(lambda *leaf: fill(rng, *leaf), state)
        return nnx.merge(graph, filled)

    return make


@pytest.fixture(scope="session")
def toy_record() -> Callable[..., Record]:
    """Clip `i` of a toy whose captions name a colour, a shade and a side: 16 of them."""

    def make(i: int, *, captions: tuple[str, ...] | None = None, frames: int = FRAMES) -> Record:
        colour = list(COLOURS)[i % 4]
        side, shade = list(SIDES)[i // 4 % 2], list(SHADES)[i // 8 % 2]
        rng = np.random.default_rng(i)
        pixels = rng.integers(0, 30, (frames, SIZE, SIZE, 3), dtype=np.uint8)
        labels = np.ones((frames, SIZE, SIZE), np.uint16)
        x = SIDES[side]
        for t in range(frames):
            rows = slice(2 + 2 * t, 16 + 2 * t)
            pixels[t, rows, x : x + 16] += np.array(COLOURS[colour], np.uint8) // 2
            pixels[t, rows, x : x + 16] += np.uint8(SHADES[shade])
            labels[t, rows, x : x + 16] = 2
        trajectories = Trajectories(
            labels,
            np.arange(frames, dtype=np.float32),
            np.arange(frames) == 0,
            VideoInfo(f"clip{i:02d}", SIZE, SIZE, 1.0, float(frames)),
        )
        if captions is None:
            captions = (f"a {shade} {colour} square on the {side}",)
        return Record(trajectories, pixels, captions)

    return make
