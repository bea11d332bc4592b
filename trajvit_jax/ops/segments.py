"""Segments: which trajectory owns each cell, and sums over the cells that each one owns.

A segment is one trajectory's mask in one frame. Trajectories are known by their slot in a row:
one video a row, or several (packed rows). Label 0 is "no token": its cells belong to no segment,
and slot 0 stays empty. So do cells whose label is outside their video's slots: inside a compiled
program nothing can be reported, and nothing may reach another frame's segments.
"""

from __future__ import annotations

import math
from typing import Self, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Float32, Int, Integer

from trajvit_jax.ops.impl import EXACT
from trajvit_jax.ops.interpolation import bilinear_taps
from trajvit_jax.ops.layer_norm import at_least_float32
from trajvit_jax.ops.ordered_sums import count_segments, segment_sum

_INT32 = 2**31


def at_least_int32(labels: Integer[Array, "*b"]) -> Integer[Array, "*b"]:
    """The same labels, comparable with any number of slots: in uint8, 256 of them would be 0."""
    return labels.astype(jnp.promote_types(labels.dtype, jnp.int32))


def _most_taps(source: int, target: int) -> int:
    """How often, at most, a source cell is one of a target cell's two."""
    (low, _), (high, _) = bilinear_taps(source, target)
    return int(np.bincount(np.concatenate([low, high])).max())


# JAX also builds pytrees around None and tracers: annotations tell, but are not checked.
@no_type_check
@struct.dataclass
class Segments:
    """The owner of every cell of every frame.

    Attributes:
      labels: slot of each cell in its video's row.
      row: row of each video; None = video i alone in row i.
      first: slot before each video's own ones; None = 0.
      rows: how many rows there are.
      slots: how many slots a row has.
      span: how many of them a video has at most, from `first` on.
      ordered: sums are made in an order that is always the same, see `ordered_sums`.
    """

    labels: Int[Array, "b t h w"]
    row: Int[Array, " b"] | None
    first: Int[Array, " b"] | None
    rows: int = struct.field(pytree_node=False)
    slots: int = struct.field(pytree_node=False)
    span: int = struct.field(pytree_node=False)
    ordered: bool = struct.field(pytree_node=False, default=False)

    @classmethod
    def of(
        cls,
        labels: Integer[Array, "b t h w"],
        slots: int,
        *,
        row: Int[Array, " b"] | None = None,
        rows: int | None = None,
        first: Int[Array, " b"] | None = None,
        span: int | None = None,
        ordered: bool = False,
    ) -> Self:
        """Segments of label maps.

        Args:
          labels: slot of each cell in its video's row; 0 = none.
          slots: how many slots a row has.
          row: row of each video, where several share one.
          rows: how many rows there then are.
          first: slot before each video's own ones, its CLS; None = 0.
          span: how many slots a video has at most, counted from `first`; None = all. Packed
            pooling costs as much as rows of so many slots, one video each.
          ordered: sums in an order that is always the same, or, faster, in any.

        Raises:
          ValueError: `row` without `rows`, or the other way round.
        """
        if (row is None) != (rows is None):
            raise ValueError("packed segments need both `row` and `rows`")
        # Before narrowing, which could bring a label from far outside back in.
        labels, span = at_least_int32(labels), slots if span is None else min(span, slots)
        low = 0 if first is None else first.astype(jnp.int32)[:, None, None, None]
        inside = (labels > low) & (labels < low + span) & (labels < slots)
        labels = jnp.where(inside, labels, 0).astype(jnp.int32)
        rows = labels.shape[0] if rows is None else rows
        return cls(labels, row, first, rows, slots, span, ordered)

    @property
    def frames(self) -> int:
        """Frames of each video."""
        return self.labels.shape[1]

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the label maps, in cells."""
        return self.labels.shape[2], self.labels.shape[3]

    @property
    def count(self) -> int:
        """How many segments there are room for."""
        return self.rows * self.slots * self.frames

    def numbers(self) -> Int[Array, "b t h w"]:
        """Each cell's segment: (row * slots + slot) * frames + frame, or `count` for none."""
        t = self.frames
        slot = self._row()[:, None, None, None] * self.slots + self.labels
        number = slot * t + jnp.arange(t, dtype=jnp.int32)[:, None, None]
        return jnp.where(self.labels > 0, number, self.count)

    def sums(self, values: Float[Array, "b t h w c"]) -> Float[Array, "r s t c"]:
        """Sum of `values` over the cells of each segment, in float32 at least."""
        channels = values.shape[-1]
        total = segment_sum(
            at_least_float32(values).reshape(-1, channels),
            self.numbers().reshape(-1),
            self.count,
            ordered=self.ordered,
            most=math.prod(self.grid),
        )
        return total.reshape(self.rows, self.slots, self.frames, channels)

    def areas(self) -> Float32[Array, "r s t"]:
        """Cells of each segment."""
        cells = count_segments(self.numbers().reshape(-1), self.count)
        return cells.reshape(self.rows, self.slots, self.frames).astype(jnp.float32)

    def coarse_masks(self, y: int, x: int) -> Float32[Array, "b t span cells"]:
        """How much each cell of a `y` x `x` grid counts in each of the video's segments.

        Upsampling that grid bilinearly to the labels' and summing over a segment is one
        product with these masks: they carry the segment through the transpose of the
        interpolation, at four weights a cell.

        Raises:
          ValueError: more masks than 32-bit indices can number.
        """
        b, t = self.labels.shape[:2]
        height, width = self.grid
        frame = jnp.arange(b * t, dtype=jnp.int32).reshape(b, t, 1, 1)
        size = b * t * self.span * y * x
        # Cells of no segment are numbered one grid further.
        if size + y * x > _INT32:
            raise ValueError(
                f"{b} videos of {t} frames with {self.span} slots on a {y}x{x} grid are more "
                "than 32-bit indices can number: split the batch, or give it fewer slots"
            )
        slot = self.labels - self._first()[:, None, None, None]
        start = jnp.where(self.labels > 0, (frame * self.span + slot) * (y * x), size)
        cells, weights = [], []
        most = _most_taps(y, height) * _most_taps(x, width)
        for rows, row_weights in bilinear_taps(y, height):
            for columns, column_weights in bilinear_taps(x, width):
                cells.append(rows[:, None] * x + columns)
                weights.append(row_weights[:, None] * column_weights)
        cell = jnp.asarray(np.stack(cells), jnp.int32)[:, None, None]
        weight = jnp.asarray(np.stack(weights))[:, None, None]
        index = start + cell
        masks = segment_sum(
            jnp.broadcast_to(weight, index.shape).reshape(-1),
            index.reshape(-1),
            size,
            ordered=self.ordered,
            most=most,
        )
        return masks.reshape(b, t, self.span, y * x)

    def upsampled_sums(self, values: Float[Array, "b t y x c"]) -> Float[Array, "r s t c"]:
        """`sums` of values that are first upsampled bilinearly to the labels' grid.

        A value that is not a number reaches all segments of its frame, not only those that it
        lies under: a mask's zero times it is not zero. Sums over gathered cells would keep it
        to its own, at 8 to 80 times the time on CPU.
        """
        b, t, y, x, c = values.shape
        if (y, x) == self.grid:
            return self.sums(values)
        flat = at_least_float32(values).reshape(b, t, y * x, c)
        masks = self.coarse_masks(y, x)
        total = jnp.matmul(masks, flat, precision=EXACT).swapaxes(1, 2)
        if self.row is None and self.first is None and self.span == self.slots:
            return total
        # The slots that a video could have reach into the next one's: those it has are its own.
        owned = (masks > 0).any((1, 3))
        slot = self._first()[:, None] + jnp.arange(self.span, dtype=jnp.int32)
        # All others go beyond the last one, each to a place of its own, and are dropped.
        count = self.rows * self.slots
        beyond = count + jnp.arange(owned.size, dtype=jnp.int32).reshape(owned.shape)
        number = jnp.where(owned, self._row()[:, None] * self.slots + slot, beyond)
        total = jax.ops.segment_sum(
            total.reshape(b * self.span, t * c),
            number.reshape(-1),
            num_segments=count,
            unique_indices=True,
        )
        return total.reshape(self.rows, self.slots, t, c)

    def _row(self) -> Int[Array, " b"]:
        b = len(self.labels)
        return jnp.arange(b, dtype=jnp.int32) if self.row is None else self.row.astype(jnp.int32)

    def _first(self) -> Int[Array, " b"]:
        b = len(self.labels)
        return jnp.zeros(b, jnp.int32) if self.first is None else self.first.astype(jnp.int32)

    def boxes(self) -> Float[Array, "r s t 4"]:
        """(x0, y0, x1, y1) in [0, 1], max exclusive; 0 where absent."""
        height, width = self.grid
        numbers, sides = self.numbers().reshape(-1), []
        for index, size in (
            (jnp.arange(width, dtype=jnp.int32)[None, :], width),
            (jnp.arange(height, dtype=jnp.int32)[:, None], height),
        ):
            position = jnp.broadcast_to(index, self.labels.shape).reshape(-1)
            low = jax.ops.segment_min(position, numbers, num_segments=self.count)
            high = jax.ops.segment_max(position, numbers, num_segments=self.count)
            # Empty segments hold the integer limits: clip before the +1 can overflow.
            sides.append((jnp.clip(low, 0, size) / size, (jnp.clip(high, -1, size) + 1) / size))
        (x0, x1), (y0, y1) = sides
        box = jnp.stack([x0, y0, x1, y1], -1).reshape(self.rows, self.slots, self.frames, 4)
        return jnp.where(self.areas()[..., None] > 0, box, 0.0)

    def centers(self) -> Float[Array, "r s t 2"]:
        """(x, y) of each segment's mean cell in [0, 1), cells counted from 0; 0 where absent."""
        height, width = self.grid
        y = jnp.broadcast_to(jnp.arange(height)[:, None] / height, self.labels.shape)
        x = jnp.broadcast_to(jnp.arange(width)[None, :] / width, self.labels.shape)
        total = self.sums(jnp.stack([x, y], -1))
        return total / jnp.maximum(self.areas(), 1)[..., None]
