"""What one step reads."""

from __future__ import annotations

from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Int32, Integer, UInt8, UInt32

from trajvit_jax.models.tokens import Rows


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Batch:
    """Videos with one caption each.

    Attributes:
      video: RGB pixels, at the model's size, or larger where the step itself crops them.
      labels: token of each cell, 0 = none: 1..max_trajectories, or with `rows` its first slot in
        its video's row. Maps are of the model's grid, or larger where the step crops them.
      text: WordPiece ids.
      text_mask: False at padding.
      caption_hash: 64 bits of the caption's hash as two words; equal captions match each other.
      dropped: trajectories of each video that found no slot.
      sample: 64 bits of the hash of the record's id as two words: with seed and epoch, what its
        random draws come from.
      epoch: how often its record was read before.
      rows: where tokens go; None = one video a row.
      present: False where a record could not be used. Its place in the batch is kept, but nothing
        is learned from it: its video has no trajectories, the statistics of the backbone and the
        loss leave it out. None = all are.
    """

    video: UInt8[Array, "b t h w 3"]
    labels: Integer[Array, "b t y x"]
    text: Int32[Array, "b l"]
    text_mask: Bool[Array, "b l"]
    caption_hash: UInt32[Array, "b 2"]
    dropped: Int32[Array, " b"]
    sample: UInt32[Array, "b 2"]
    epoch: Int32[Array, " b"]
    rows: Rows | None = None
    present: Bool[Array, " b"] | None = None
