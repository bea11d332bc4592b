"""Making a VideoLLM of what was trained before, and telling what is trained of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from trajvit_jax.evals.loaded import hash_of
from trajvit_jax.experiment import read_made_of
from trajvit_jax.llm import hugging_face
from trajvit_jax.llm.experiment import WeightSettings
from trajvit_jax.llm.eyes import Eyes
from trajvit_jax.llm.file_samples import samples
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.lora import PREFIX
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.tokenizer import TOKENIZER
from trajvit_jax.models.video_text import VideoTextModel
from trajvit_jax.sharding import shardings


def make(
    settings: VideoLLMSettings,
    encoder: VideoTextModel | None,
    llm: str,
    *,
    mesh: Mesh,
    seed: int,
    leave_llm: bool = False,
) -> VideoLLM:
    """The model, its arrays on a mesh by the rules of `trajvit_jax.sharding`.

    Args:
      settings: of the model.
      encoder: a trained one, which is used as `settings.video` say; None = random numbers.
      llm: a folder as Hugging Face keeps a model; '' = random numbers.
      mesh: of the devices.
      seed: of what is random: the connector always.
      leave_llm: the language model stays without arrays, for others to fill in.

    Raises:
      FileNotFoundError, ValueError: as `hugging_face.load` does.
    """
    model = nnx.eval_shape(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))
    video, eyes = settings.video, settings.eyes
    if encoder is not None:
        model.eyes = _placed(Eyes.of(encoder, settings.eyes, video), mesh)
    else:
        model.eyes = _drawn(lambda rngs: Eyes(video, eyes, rngs=rngs), mesh, [seed, 0])
    width, out = video.encoder.width, settings.llm.width
    model.connector = _drawn(lambda rngs: nnx.Linear(width, out, rngs=rngs), mesh, [seed, 1])
    if leave_llm:
        return model
    if llm:
        model.llm = hugging_face.fill(model.llm, hugging_face.Tensors(llm), mesh, seed=seed)
    else:
        model.llm = _drawn(lambda rngs: Llama(settings.llm, rngs=rngs), mesh, [seed, 2])
    return model


def _placed(module: nnx.Module, mesh: Mesh) -> nnx.Module:
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.device_put(state, shardings(state, mesh)))


def _drawn(build: Callable[[nnx.Rngs], nnx.Module], mesh: Mesh, seed: Sequence[int]) -> nnx.Module:
    """A random module, each device making its own part."""
    number = int(np.random.SeedSequence(list(seed)).generate_state(1)[0] >> 1)
    graph, like = nnx.split(nnx.eval_shape(lambda: build(nnx.Rngs(number))))
    draw = jax.jit(
        lambda: nnx.split(build(nnx.Rngs(number)))[1],
        out_shardings=shardings(like, mesh),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    return nnx.merge(graph, draw())


def fingerprint(encoder: VideoTextModel | None, llm: str, tokenizer: str = "") -> str:
    """What a run was made of beside its data: of the encoder all numbers, of the language model
    its config and `file_samples.samples` of its weights, and the words of a tokenizer's folder."""
    digest = hashlib.sha256((hash_of(encoder) if encoder is not None else "").encode())
    if tokenizer or llm:
        digest.update((Path(tokenizer or llm) / TOKENIZER).read_bytes())
    if llm:
        digest.update((Path(llm) / "config.json").read_bytes())
        for file in sorted(Path(llm).glob("*.safetensors")):
            digest.update(f"{file.name}\0".encode())
            for part in samples(file):
                digest.update(part)
    return digest.hexdigest()[:16]


def check_made_of(workdir: Path, weights: WeightSettings, between: str) -> None:
    """Raises ValueError for a run that was trained between other models.

    Args:
      workdir: of the run.
      weights: where the models are looked for.
      between: their `fingerprint`.
    """
    if not read_made_of(workdir).endswith(between):
        raise ValueError(
            f"{workdir} was trained between other models than {weights.video or 'none'} "
            f"and {weights.llm or 'none'} hold now: put those back"
        )


def is_trained(parts: Sequence[str]) -> Callable[[tuple[Any, ...], Any], bool]:
    """A filter for `nnx.split`: the parameters of these parts (see `experiment.PARTS`)."""

    def choose(path: tuple[Any, ...], value: Any) -> bool:
        if not (isinstance(value, nnx.Param) or getattr(value, "type", None) is nnx.Param):
            return False
        is_adapter = str(path[-1]).startswith(PREFIX)
        part = "lora" if is_adapter else str(path[0])
        return part in parts

    return choose
