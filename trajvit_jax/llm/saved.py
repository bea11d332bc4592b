"""A whole VideoLLM in a folder, to be moved, shipped and loaded again.

FOLDER/settings.json        of the eyes, and how videos are cut for them
FOLDER/eyes.safetensors     the video encoder and the connector, by dotted path
FOLDER/llm/                 the language model and its tokenizer, as Hugging Face keeps them
"""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from jax.sharding import AbstractMesh, Mesh

from tokenization.files import write_text
from trajvit_jax.config import to_settings
from trajvit_jax.convert.files import read_state_dict, write_state_dict
from trajvit_jax.convert.pieces import fill, paths
from trajvit_jax.experiment import TOKENIZATION, has_run, read_settings
from trajvit_jax.llm import hugging_face, parts
from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.llm.eyes import EyesSettings
from trajvit_jax.llm.llama import without_adapters
from trajvit_jax.llm.model import VideoLLM, VideoLLMSettings
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.llm.tokenizer import TOKENIZER, ChatTokenizer
from trajvit_jax.llm.train import resolve
from trajvit_jax.llm.trained import read_params
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.ops.mesh import TENSOR
from trajvit_jax.sharding import MeshSettings, make_mesh, shardings

_SETTINGS, _EYES, _LLM = "settings.json", "eyes.safetensors", "llm"


@dataclasses.dataclass(frozen=True, eq=False)
class Saved:
    """A VideoLLM, and what it takes to use it.

    Attributes:
      model: the VideoLLM.
      chat: its tokenizer.
      tokenization: settings of `tokenization.extract` by which its videos were cut, as JSON; {}
        where that is not known.
    """

    model: VideoLLM
    chat: ChatTokenizer
    tokenization: dict


@dataclasses.dataclass(frozen=True)
class _Settings:
    video: ModelSettings
    eyes: EyesSettings
    tokenization: dict


def load(
    folder: str | os.PathLike[str], mesh: Mesh | None = None, *, attention: str = "xla"
) -> Saved:
    """A VideoLLM from a folder that `save` wrote, or the workdir of `trajvit_jax.llm.teach`.

    Args:
      folder: either.
      mesh: whose devices share the arrays; None = one device.
      attention: see `LlamaSettings`.

    Raises:
      FileNotFoundError: the folder, or one that a run was made with, is not there.
      ValueError: files that are damaged or do not belong together, or a model that `attention`
        is not for.
    """
    folder = Path(folder)
    mesh = mesh or mesh_of(1)
    if has_run(folder):
        return _of_run(folder, mesh, attention)
    path = folder / _SETTINGS
    if not path.is_file() or not (folder / _EYES).is_file():
        raise FileNotFoundError(
            f"{folder} holds no VideoLLM: name the --workdir of python -m trajvit_jax.llm.teach, "
            f"or a folder with {_SETTINGS}, {_EYES} and {_LLM}/"
        )
    try:
        values = json.loads(path.read_text("utf-8"))
        tokenization = values.pop("tokenization")
        own = to_settings(_Settings, values | {"tokenization": {}}, "settings")
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error})") from error
    # As the eyes compute, so does the language model, which is no longer trained.
    dtype = own.video.dtype
    llm = hugging_face.read_settings(folder / _LLM, dtype=dtype, stored=dtype)
    llm = dataclasses.replace(llm, attention=attention)
    _check_shares(llm, mesh)
    settings = VideoLLMSettings(own.video, own.eyes, llm)
    model = nnx.eval_shape(lambda: VideoLLM(settings, rngs=nnx.Rngs(0)))
    arrays = read_state_dict(folder / _EYES)
    for name in ("eyes", "connector"):
        part = {
            n.removeprefix(f"{name}."): x for n, x in arrays.items() if n.startswith(f"{name}.")
        }
        setattr(model, name, fill(getattr(model, name), part))
    model.llm = hugging_face.fill(model.llm, hugging_face.Tensors(folder / _LLM), mesh)
    chat = ChatTokenizer.load(folder / _LLM, llm.vocabulary)
    return Saved(model, chat, tokenization)


def mesh_of(devices: int) -> Mesh:
    """The first devices of this host; each has its share of every layer's heads and MLP.

    Raises:
      ValueError: the host has fewer, or none is asked for.
    """
    there = jax.local_devices()
    if not 1 <= devices <= len(there):
        raise ValueError(f"devices={devices} must be 1 to {len(there)}, which this host has")
    return make_mesh(MeshSettings(data=1, tensor=devices), there[:devices])


def _check_shares(llm: LlamaSettings, mesh: Mesh | AbstractMesh) -> None:
    """Raises ValueError for devices each of which would have all of what it cannot divide."""
    devices = mesh.shape[TENSOR]
    for what, count in (("heads", llm.heads), ("columns of the MLP", llm.mlp)):
        if count % devices:
            raise ValueError(f"devices={devices} do not divide the model's {count} {what}")


def _of_run(workdir: Path, mesh: Mesh, attention: str) -> Saved:
    settings = read_settings(workdir, VideoLLMExperiment)
    # What is no longer trained is kept as layers compute, as in `load`.
    used = {"attention": attention, "stored": settings.llm.dtype}
    settings = dataclasses.replace(settings, llm=dataclasses.replace(settings.llm, **used))
    settings, encoder = resolve(settings, mesh)
    _check_shares(settings.llm, mesh)
    weights = settings.weights
    made_of = parts.fingerprint(encoder, weights.llm, weights.tokenizer)
    parts.check_made_of(workdir, weights, made_of)
    with jax.set_mesh(mesh):
        # A language model that was trained is in the checkpoint, whole.
        own, leave = settings.weights, "llm" in settings.train
        made = parts.make(
            settings.both, encoder, own.llm, mesh=mesh, seed=settings.seed, leave_llm=leave
        )
        graph, params, frozen = nnx.split(made, parts.is_trained(settings.train), ...)
        where = shardings(params, mesh)
        like = jax.tree.map(
            lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), params, where
        )
        del made, params
        model = nnx.merge(graph, read_params(workdir, like), frozen)
    folder = settings.weights.tokenizer or settings.weights.llm
    chat = ChatTokenizer.load(folder, settings.llm.vocabulary, model=settings.weights.llm)
    made = workdir / TOKENIZATION
    if not made.is_file() and settings.model.name == "trajvit":
        raise FileNotFoundError(
            f"{made} is missing, which tells how the videos were cut that the model learned from; "
            "copy settings.json of its records there"
        )
    tokenization = json.loads(made.read_text("utf-8")) if made.is_file() else {}
    return Saved(model, chat, tokenization)


def save(saved: Saved, folder: str | os.PathLike[str], *, tokenizer: str) -> None:
    """Writes a folder that `load` reads. Adapters are added to the matrices that they adapt.

    Args:
      saved: what is written.
      folder: made where it does not exist.
      tokenizer: a folder, whose tokenizer.json is copied.

    Raises:
      OSError: it cannot be written.
    """
    folder, model = Path(folder), saved.model
    chat = saved.chat
    # It may lie in this very folder.
    words = (Path(tokenizer) / TOKENIZER).read_bytes()
    # First away and last back: a save that is cut off leaves nothing that loads.
    (folder / _SETTINGS).unlink(missing_ok=True)
    llm = without_adapters(model.llm)
    hugging_face.save(llm, folder / _LLM, begin=chat.begin, stop=chat.stop)
    (folder / _LLM / TOKENIZER).write_bytes(words)
    arrays = {}
    for name in ("eyes", "connector"):
        part = paths(getattr(model, name))
        arrays |= {f"{name}.{path}": np.asarray(x) for path, x in part.items()}
    write_state_dict(folder / _EYES, arrays)
    own = model.settings
    told = {"video": dataclasses.asdict(own.video), "eyes": dataclasses.asdict(own.eyes)}
    told["tokenization"] = saved.tokenization
    write_text(folder / _SETTINGS, json.dumps(told, indent=1) + "\n")
