"""Foreign parameter names against ours, as data: one table reads both ways.

A `Piece` says that one array of theirs is one part of one array of ours: the whole, one layer
of a stack, or the query's third of a joint projection. A model's table is a list of pieces.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx

from trajvit_jax.convert.report import Report, match

Index = tuple[int | slice, ...]
M = TypeVar("M", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class Form:
    """How one array is written by them and by us."""

    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


PLAIN = Form(lambda x: x, lambda x: x)
# PyTorch's linear layers are (out, in), its convolutions (out, in, height, width).
LINEAR = Form(lambda x: x.T, lambda x: x.T)
CONV = Form(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))
# A token kept as [1, 1, d].
TOKEN = Form(lambda x: x.reshape(-1), lambda x: x.reshape(1, 1, -1))


@dataclasses.dataclass(frozen=True)
class Piece:
    """One of their arrays.

    Attributes:
      theirs: its name.
      ours: the dotted path of our array.
      index: where in our array it lies.
      form: how it is written.
    """

    theirs: str
    ours: str
    index: Index = ()
    form: Form = PLAIN


def paths(module: nnx.Module) -> dict[str, Any]:
    """Arrays (or their shapes) of a module by dotted path."""
    state = nnx.to_pure_dict(nnx.state(module))
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {".".join(str(key.key) for key in path): leaf for path, leaf in leaves}


def their_shapes(pieces: Iterable[Piece], ours: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shape of each of their arrays that fits our shapes.

    Raises:
      KeyError: a piece of an array that we do not have.
    """
    shapes = {}
    for piece in pieces:
        # No memory: an array that repeats one zero.
        part = np.broadcast_to(np.zeros((), np.int8), ours[piece.ours].shape)[piece.index]
        shapes[piece.theirs] = piece.form.to_theirs(part).shape
    return shapes


def read(
    pieces: Iterable[Piece], found: Mapping[str, np.ndarray], ours: Mapping[str, Any]
) -> tuple[dict[str, np.ndarray], Report]:
    """Our arrays from theirs, in the dtypes of ours.

    Args:
      pieces: the table.
      found: their arrays by name.
      ours: our arrays or shapes by dotted path; where a piece is missing or of another shape,
        numbers stay zero, and the report says so.

    Returns:
      Our arrays that have pieces, by path, and what was used, missing, left over or wrong.
    """
    pieces = list(pieces)
    report = match(found, their_shapes(pieces, ours))
    used, arrays = set(report.used), {}
    for piece in pieces:
        like = ours[piece.ours]
        target = arrays.setdefault(piece.ours, np.zeros(like.shape, like.dtype))
        if piece.theirs in used:
            target[piece.index] = piece.form.to_ours(np.asarray(found[piece.theirs]))
    return arrays, report


def write(pieces: Iterable[Piece], ours: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Their arrays from ours.

    Raises:
      KeyError: a piece of an array that we do not have.
    """
    return {
        piece.theirs: np.array(
            piece.form.to_theirs(np.asarray(ours[piece.ours])[piece.index]), order="C"
        )
        for piece in pieces
    }


def fill(module: M, arrays: Mapping[str, np.ndarray | jax.Array]) -> M:
    """The module with these arrays in place of its own (or of the shapes it was made of).

    Raises:
      ValueError: an array of the module without a value here.
    """
    graph, state = nnx.split(module)
    missing = sorted(set(paths(module)) - set(arrays))
    if missing:
        raise ValueError(f"no values for {len(missing)} arrays, among them {missing[:5]}")

    def value(path: tuple[Any, ...], leaf: Any) -> jax.Array:
        name = ".".join(str(key.key) for key in path if hasattr(key, "key"))
        return jax.numpy.asarray(arrays[name], leaf.dtype)

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(value, state))
