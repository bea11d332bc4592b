"""What one step reads."""

from __future__ import annotations

from typing import no_type_check

from flax import struct
from jaxtyping import Array, Bool, Int32, UInt8, UInt32


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Batch:
    """Videos with one caption each.

    Attributes:
      video: RGB pixels.
      labels: token slot of each cell: 0 = none, 1..max_trajectories.
      text: WordPiece ids.
      text_mask: False at padding.
      caption_hash: 64 bits of the caption's hash as two words; equal captions match each other.
      dropped: trajectories of each video that found no slot.
    """

    video: UInt8[Array, "b t h w 3"]
    labels: Int32[Array, "b t y x"]
    text: Int32[Array, "b l"]
    text_mask: Bool[Array, "b l"]
    caption_hash: UInt32[Array, "b 2"]
    dropped: Int32[Array, " b"]
