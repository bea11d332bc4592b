"""Tiny models and records; compiled programs are kept for the session."""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from tokenization.records import Record
from tokenization.shards import write_records
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.convert.conversion import Converted, convert
from trajvit_jax.convert.kinds import Choices
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.pipeline import DataSettings
from trajvit_jax.data.steps import train_steps
from trajvit_jax.data.streams import Stream
from trajvit_jax.data.wordpiece import WordPiece
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
    """Compiles without optimizations, and every program once a session; see `test_optimized`."""
    if "TRAJVIT_TEST_OPTIMIZED" not in os.environ:
        jax.config.update("jax_disable_most_optimizations", True)
        if jax.__version_info__ < (0, 11):  # Later ones have this one emitter alone.
            flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false"
            os.environ["XLA_FLAGS"] = flags.strip()
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@pytest.fixture(scope="module", autouse=True)
def few_programs_in_memory() -> Iterator[None]:
    """Lets go of a file's programs: all of the suite's would take gigabytes."""
    yield
    jax.clear_caches()


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
            "text": TextSettings(
                vocabulary=64, length=12, positions=12, width=32, depth=2, heads=2, mlp=64
            ),
        }
        return ModelSettings(name=name, **(sizes | changes))

    return make


@pytest.fixture(scope="session")
def randomized() -> Callable[[Callable[[], nnx.Module]], Any]:
    """A module with random numbers in every parameter and statistic, made without compiling.

    They depend on a parameter's name alone: what two modules have in common is equal in both.
    """

    def fill(path: tuple, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        name = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)][-1]
        rng = np.random.default_rng(zlib.crc32(jax.tree_util.keystr(path).encode()))
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

    def make(build: Callable[[], nnx.Module]) -> Any:
        graph, state = nnx.split(nnx.eval_shape(build))
        return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, state))

    return make


@pytest.fixture(scope="session")
def random_model(randomized) -> Callable[[ModelSettings], VideoTextModel]:
    """A model with random numbers in every parameter and statistic."""
    return lambda settings: randomized(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))


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


@pytest.fixture(scope="session")
def toys(toy_record, tmp_path_factory) -> Path:
    """Folder with records of videos of 4 frames and of images, with captions."""
    root = tmp_path_factory.mktemp("toys")
    for folder, frames in (("videos", 4), ("images", 1)):
        for split in ("train", "test"):
            records = [toy_record(i, frames=frames) for i in range(16)]
            write_records(root / folder, records, split=split)
    return root


@pytest.fixture(scope="session")
def free_address() -> Callable[[], str]:
    """A port of this machine that nobody listens at, as HOST:PORT."""

    def find() -> str:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return f"127.0.0.1:{free.getsockname()[1]}"

    return find


@pytest.fixture(scope="session")
def start_script() -> Callable[..., subprocess.Popen]:
    """Starts a script beside the tests, with so many virtual CPU devices."""

    def start(name: str, *arguments: object, devices: int, **environment: str) -> subprocess.Popen:
        flags = f"--xla_force_host_platform_device_count={devices}"
        return subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / name), *map(str, arguments)],
            env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def printed() -> Callable[[subprocess.Popen], Any]:
    """The JSON object that a script printed last, when it has ended."""

    def read(process: subprocess.Popen, seconds: float = 500) -> Any:
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        assert process.returncode == 0, stderr[-3000:]
        # What is written below JAX, as by Gloo, comes in between.
        return json.loads([line for line in stdout.splitlines() if line.startswith("{")][-1])

    return read


@pytest.fixture(scope="session")
def assert_close() -> Callable[..., None]:
    """Compares pytrees leaf by leaf: max|a - b| <= 1e-5 * max(1, max|b|)."""

    def compare(path: tuple, actual: object, expected: object) -> None:
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        assert actual.shape == expected.shape, f"{path}: {actual.shape} != {expected.shape}"
        bound = 1e-5 * max(1.0, np.abs(expected).max(initial=0.0))
        error = np.abs(actual - expected).max(initial=0.0)
        assert error <= bound, f"{jax.tree_util.keystr(path)}: off by {error:.3g} > {bound:.3g}"

    def check(actual: object, expected: object) -> None:
        jax.tree_util.tree_map_with_path(compare, actual, expected)

    return check


@pytest.fixture(scope="session")
def train_batches() -> Callable[..., Iterator[Batch]]:
    """Endless batches of one opened source; see `train_steps`."""

    def read(
        source: Sequence[Record],
        model: ModelSettings,
        text: WordPiece,
        settings: DataSettings,
        *,
        seed: int,
        start: int = 0,
    ) -> Iterator[Batch]:
        (own,) = dataclasses.replace(settings, streams=()).train_streams(model.frames)
        stream, reading = Stream(own, (source,)), settings.reading()
        steps = train_steps([stream], model, text, seed=seed, start=start, reading=reading)
        return (loaded.batch for loaded in steps)

    return read


@pytest.fixture(scope="session")
def image_vit(golden: Callable[[str], dict[str, np.ndarray]]) -> Converted:
    """An image ViT of Hugging Face's names at random weights, converted."""
    prefix = "vit/sd/"
    arrays = {
        k.removeprefix(prefix): v for k, v in golden("hf_tiny").items() if k.startswith(prefix)
    }
    return convert(arrays, choices=Choices(heads=4))
