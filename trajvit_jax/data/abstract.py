"""Shapes of a step's batch, from settings alone: to compile and to count without any data."""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import DTypeLike

from trajvit_jax.data.batch import Batch
from trajvit_jax.data.schedule import StreamSettings
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows


def abstract_batch(
    stream: StreamSettings, model: ModelSettings, *, stored: int | None = None
) -> Batch:
    """What a step of a stream reads: `jax.ShapeDtypeStruct`s in place of arrays.

    Args:
      stream: whose batch, frames and rows it has.
      model: whose sizes it has.
      stored: pixels a side of the records, where the step crops them; None = the loader resizes.
    """
    b, t, side = stream.batch, stream.frames, stored or model.image_size
    cells, kind = (model.grid, np.int32) if stored is None else (stored, np.uint16)
    return Batch(
        video=_shape(np.uint8, b, t, side, side, 3),
        labels=_shape(kind, b, t, cells, cells),
        text=_shape(np.int32, b, model.text.length),
        text_mask=_shape(np.bool_, b, model.text.length),
        caption_hash=_shape(np.uint32, b, 2),
        dropped=_shape(np.int32, b),
        sample=_shape(np.uint32, b, 2),
        epoch=_shape(np.int32, b),
        rows=_rows(stream) if model.name == "trajvit" else None,
        present=_shape(np.bool_, b),
    )


def _rows(stream: StreamSettings) -> Rows | None:
    if stream.packing is None:
        return None
    groups, packing = stream.batch // stream.group, stream.packing
    slots = _shape(np.int32, groups, packing.rows, packing.slots)
    return Rows(slots, slots, _shape(np.int32, groups, packing.group))


def _shape(dtype: DTypeLike, *sizes: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(sizes, dtype)
