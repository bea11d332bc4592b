"""Making a VideoLLM of what was trained before, and telling what is trained of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from trajvit_jax.checkpoints import Checkpoints
from trajvit_jax.config import to_settings
from trajvit_jax.convert.stored import SETTINGS, load_model
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.experiment import WeightSettings
from trajvit_jax.llm.eyes import Eyes
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.lora import PREFIX
from trajvit_jax.llm.video_llm import VideoLLM, VideoLLMSettings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.optim import OptimizerSettings, optimizer
from trajvit_jax.sharding import MeshSettings, make_mesh, shardings
from trajvit_jax.state import TrainState


def load_encoder(folder: str | os.PathLike[str]) -> VideoTextModel:
    """A trained video-text model, of a folder of `trajvit_jax.convert` or a run's workdir.

    Raises:
      FileNotFoundError: neither is there.
      ValueError: what is there is damaged, or of other settings.
    """
    folder = Path(folder)
    if (folder / "checkpoints").is_dir():
        return _of_run(folder)
    if not (folder / SETTINGS).is_file():
        raise FileNotFoundError(
            f"{folder} holds no video encoder: name the folder that python -m trajvit_jax.convert "
            "wrote, or the workdir of a run of python -m trajvit_jax.main"
        )
    return load_model(folder, rngs=nnx.Rngs(0))


def encoder_settings(folder: str | os.PathLike[str]) -> ModelSettings:
    """The settings of that model, without its arrays; raises as `load_encoder` does."""
    folder = Path(folder)
    if not (folder / "checkpoints").is_dir():
        return load_encoder(folder).settings
    path = folder / SETTINGS
    try:
        found = json.loads(path.read_text("utf-8"))["model"]
        words = len((folder / "vocab.txt").read_text("utf-8").splitlines())
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{folder} is no workdir of a video-text run: {error}") from error
    found["text"]["vocabulary"] = words
    return to_settings(ModelSettings, found, "model")


def _of_run(workdir: Path) -> VideoTextModel:
    settings = encoder_settings(workdir)
    noted = json.loads((workdir / SETTINGS).read_text("utf-8"))
    tx = optimizer(OptimizerSettings(), 1)
    averaged = noted["step"]["average_decay"] > 0
    mesh = make_mesh(MeshSettings(data=1), jax.local_devices()[:1])
    like = TrainState.shapes(settings, tx, mesh=mesh, averaged=averaged)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        state = checkpoints.restore(like)
    # On no mesh: where they go next is another's to say.
    graph, arrays = nnx.split(state.best_model())
    return nnx.merge(graph, jax.device_put(arrays, jax.local_devices()[0]))


def make(settings: VideoLLMSettings, weights: WeightSettings, *, mesh: Mesh, seed: int) -> VideoLLM:
    """The model, its arrays on a mesh by the rules of `trajvit_jax.sharding`.

    The connector is random; so is what `weights` names no folder for.

    Raises:
      FileNotFoundError, ValueError: as `load_encoder` and `hugging_face.load` do; or an encoder
        of other settings.
    """
    model = nnx.eval_shape(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))
    rngs = nnx.Rngs(seed)
    if weights.video:
        trained = load_encoder(weights.video)
        if trained.settings != settings.video:
            raise ValueError(
                f"{weights.video} is of an encoder with other settings; leave config.model out, "
                "which is then read from there"
            )
        model.eyes = _placed(Eyes.of(trained, settings.eyes), mesh)
    else:
        model.eyes = _drawn(lambda: Eyes(settings.video, settings.eyes, rngs=rngs), mesh)
    width, out = settings.video.encoder.width, settings.llm.width
    model.connector = _drawn(lambda: nnx.Linear(width, out, rngs=rngs), mesh)
    if weights.llm:
        model.llm = hugging_face.fill(model.llm, hugging_face.Tensors(weights.llm), mesh)
    else:
        model.llm = _drawn(lambda: Llama(settings.llm, rngs=rngs), mesh)
    return model


def _placed(module: nnx.Module, mesh: Mesh) -> nnx.Module:
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.device_put(state, shardings(state, mesh)))


def _drawn(build: Callable[[], nnx.Module], mesh: Mesh) -> nnx.Module:
    """A random module, each device making its own part."""
    graph, like = nnx.split(nnx.eval_shape(build))
    draw = jax.jit(
        lambda: nnx.split(build())[1],
        out_shardings=shardings(like, mesh),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return nnx.merge(graph, draw())


def is_trained(parts: Sequence[str]) -> Callable[[tuple[Any, ...], Any], bool]:
    """A filter for `nnx.split`: the parameters of these parts (see `experiment.PARTS`)."""

    def choose(path: tuple[Any, ...], value: Any) -> bool:
        if not (isinstance(value, nnx.Param) or getattr(value, "type", None) is nnx.Param):
            return False
        is_adapter = str(path[-1]).startswith(PREFIX)
        part = "lora" if is_adapter else str(path[0])
        return part in parts

    return choose
