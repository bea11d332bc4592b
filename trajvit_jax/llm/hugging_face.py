"""Llama-3's weights as Hugging Face keeps them, both ways, one tensor at a time.

    FOLDER/config.json, tokenizer.json and what `tensors` says

Every device's part of an array is read straight from the files: a host holds the part that is
on its way to a device, and never a second copy of the model.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding
from tqdm import tqdm

from tokenization.files import write_text
from trajvit_jax.convert.names import linear
from trajvit_jax.convert.pieces import LINEAR, Piece, paths, their_shapes
from trajvit_jax.convert.report import match
from trajvit_jax.llm import lora
from trajvit_jax.llm.llama import Llama
from trajvit_jax.llm.settings import LlamaSettings, from_hugging_face, to_hugging_face
from trajvit_jax.llm.tensors import Tensors, write_tensors
from trajvit_jax.sharding import partition

_LOG = logging.getLogger(__name__)
_CONFIG = "config.json"
_LAYER = {
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "attention_out": "self_attn.o_proj",
    "gate": "mlp.gate_proj",
    "mlp_in": "mlp.up_proj",
    "mlp_out": "mlp.down_proj",
}
_NORMS = {"norm_attention": "input_layernorm", "norm_mlp": "post_attention_layernorm"}
# What is in files and is no parameter: old ones keep the frequencies.
_NO_PARAMETER = ("rotary_emb.inv_freq",)


def names(settings: LlamaSettings) -> Iterator[Piece]:
    """transformers' `LlamaForCausalLM` against our `Llama`."""
    yield Piece("model.embed_tokens.weight", "table.embedding")
    for layer in range(settings.depth):
        at = f"model.layers.{layer}"
        for ours, theirs in _LAYER.items():
            yield Piece(f"{at}.{theirs}.weight", f"layers.{ours}.kernel", (layer,), LINEAR)
        for ours, theirs in _NORMS.items():
            yield Piece(f"{at}.{theirs}.weight", f"layers.{ours}.scale", (layer,))
    yield Piece("model.norm.weight", "norm.scale")
    if not settings.tied:
        yield from linear("lm_head", "head", bias=False)


def read_settings(folder: str | os.PathLike[str], **changes: Any) -> LlamaSettings:
    """The settings that the folder's config.json tells, with changes.

    Raises:
      FileNotFoundError: no config.json there.
      ValueError: it is of another architecture, or no JSON; the message names the file.
    """
    path = Path(folder) / _CONFIG
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; the folder must hold {_CONFIG}, tokenizer.json and "
            "*.safetensors, as Hugging Face keeps a model"
        )
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError(f"it holds a {type(config).__name__}, no JSON object")
        return from_hugging_face(config, **changes)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not of a Llama-3: {error}") from error


def load(folder: str | os.PathLike[str], mesh: Mesh | None = None, **changes: Any) -> Llama:
    """A model with the folder's weights, on the devices of a mesh or on one.

    Args:
      folder: as Hugging Face keeps a model.
      mesh: by whose rules (`trajvit_jax.sharding`) the arrays lie; None = on one device.
      changes: of the settings: dtype, stored, remat, ..

    Raises:
      FileNotFoundError: no config.json, or a shard is missing.
      ValueError: files that are damaged or do not fill the model; the message names what.
    """
    settings = read_settings(folder, **changes)
    return fill(abstract(settings), Tensors(folder), mesh)


def abstract(settings: LlamaSettings) -> Llama:
    """The model with shapes in place of arrays."""
    return nnx.eval_shape(lambda: Llama(settings, rngs=nnx.Rngs(0)))


def fill(model: Llama, found: Tensors, mesh: Mesh | None = None, *, seed: int = 0) -> Llama:
    """An abstract model with its arrays; see `load`. Adapters start by the seed."""
    pieces = list(names(model.settings))
    report = match(found, their_shapes(pieces, paths(model)))
    report.raise_if_incomplete(found.path)
    left = [name for name in report.left_over if not name.endswith(_NO_PARAMETER)]
    if model.settings.tied:
        left = [name for name in left if name != "lm_head.weight"]  # the table, once more
    if left:
        _LOG.warning("%s: %d arrays are not used: %s", found.path, len(left), ", ".join(left[:3]))
    parts: dict[str, list[Piece]] = {}
    for piece in pieces:
        parts.setdefault(piece.ours, []).append(piece)
    graph, state = nnx.split(model)
    bar = tqdm(total=len(jax.tree.leaves(state)), desc="reading weights", unit="array", delay=5)

    def place(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        names = [str(key.key) for key in path if hasattr(key, "key")]
        own = parts.get(".".join(names))

        def block(index: tuple[slice, ...]) -> np.ndarray:
            # An adapter's parameters are small, and in no file.
            return (
                lora.start(names, leaf, seed=seed)[index]
                if own is None
                else _part(own, found, leaf, index)
            )

        where = _sharding(names, leaf, mesh)
        array = jax.make_array_from_callback(leaf.shape, where, block)
        jax.block_until_ready(array)  # or parts of many arrays would wait on the host
        bar.update()
        return array

    with bar:
        return nnx.merge(graph, jax.tree_util.tree_map_with_path(place, state))


def _sharding(path: list[str], leaf: jax.ShapeDtypeStruct, mesh: Mesh | None) -> Sharding:
    if mesh is None:
        return SingleDeviceSharding(jax.local_devices()[0])
    return NamedSharding(mesh, partition(path, leaf.shape, mesh))


def _part(
    pieces: list[Piece],
    found: Mapping[str, np.ndarray],
    leaf: jax.ShapeDtypeStruct,
    index: tuple[slice, ...],
) -> np.ndarray:
    """A block of one of our arrays, read from the pieces that it is made of."""
    if not pieces[0].index:
        view = pieces[0].form.to_ours(found[pieces[0].theirs])
        return np.array(view[index], leaf.dtype, order="C")
    layers = range(*index[0].indices(leaf.shape[0]))
    inner = tuple(
        len(range(*cut.indices(n))) for cut, n in zip(index[1:], leaf.shape[1:], strict=True)
    )
    block = np.empty((len(layers), *inner), leaf.dtype)
    for row, layer in enumerate(layers):
        piece = pieces[layer]
        block[row] = piece.form.to_ours(found[piece.theirs])[index[1:]]
    return block


def save(
    model: Llama,
    folder: str | os.PathLike[str],
    *,
    begin: int | None = None,
    stop: Sequence[int] = (),
    **options: int,
) -> None:
    """Writes config.json and weights that transformers loads; the tokenizer is not written.

    On many hosts every process makes the same call, and process 0 writes.

    Args:
      model: whose arrays may be shared by devices; one tensor at a time is gathered.
      folder: made where it does not exist.
      begin: id that sequences begin with, for transformers.
      stop: ids after which an answer is over, for transformers.
      options: see `tensors.write_tensors`.

    Raises:
      ValueError: a model with adapters, which the format has no place for.
    """
    if model.settings.lora is not None:
        raise ValueError("a model with adapters: write `llama.without_adapters(model)`")
    pieces = {piece.theirs: piece for piece in names(model.settings)}
    ours = paths(model)
    shapes = their_shapes(pieces.values(), ours)
    dtype = np.dtype(model.settings.stored)

    def value(name: str) -> np.ndarray:
        piece = pieces[name]
        array = ours[piece.ours]
        part = array[piece.index] if piece.index else array
        if isinstance(array.sharding, NamedSharding):
            everywhere = NamedSharding(array.sharding.mesh, PartitionSpec())
            part = jax.device_put(part, everywhere)
        return piece.form.to_theirs(np.asarray(part))

    bar = tqdm(total=len(pieces), desc="writing weights", unit="array", delay=5)

    def told(name: str) -> np.ndarray:
        bar.update()
        return value(name)

    with bar:
        if jax.process_index() == 0:
            # First away and last back: a save that is cut off leaves no model.
            (Path(folder) / _CONFIG).unlink(missing_ok=True)
            announced = {name: (shape, dtype) for name, shape in shapes.items()}
            write_tensors(folder, announced, told, **options)
            config = to_hugging_face(model.settings)
            marks = {"bos_token_id": begin, "eos_token_id": list(stop) or None}
            config |= {name: ids for name, ids in marks.items() if ids is not None}
            write_text(Path(folder) / _CONFIG, json.dumps(config, indent=2) + "\n")
        else:
            for name in pieces:  # gathering takes all processes
                told(name)
