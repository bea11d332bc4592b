"""Sums by segment whose addends meet in the same order on every run and every device.

`jax.ops.segment_sum` and the gradient of an indexed read are scatters that add. On a GPU its
threads add in the order in which they come, and so the last bits of a sum differ from run to run.
Here addends are sorted by segment, then each adds the sum that ends 1, 2, 4, .. places before it
in the same segment (Hillis and Steele), and the last one's sum is written.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def segment_sum(
    values: Float[Array, "n ..."],
    segments: Int[Array, " n"],
    count: int,
    *,
    ordered: bool,
    most: int | None = None,
) -> Float[Array, "{count} ..."]:
    """Sum of the values of each of `count` segments; those of other numbers are left out.

    Args:
      values: what is added up.
      segments: the segment of each.
      count: how many segments there are.
      ordered: in an order that is always the same, or, faster, in any.
      most: values of a segment, if that is known; what is above them may be missing.
    """
    if ordered:
        return _ordered(values, segments, count, most)
    return jax.ops.segment_sum(values, segments, num_segments=count)


def read_rows(
    table: Float[Array, "v d"], rows: Int[Array, "*b"], *, ordered: bool
) -> Float[Array, "*b d"]:
    """Rows of a table; its gradient is the `segment_sum` of theirs.

    Args:
      table: what is read.
      rows: which; all must be there.
      ordered: as in `segment_sum`.
    """
    if ordered:
        return _ordered_read(table, rows)
    return jnp.take(table, rows, axis=0)


def count_segments(segments: Int[Array, " n"], count: int) -> Int[Array, " {count}"]:
    """How often each segment occurs: whole numbers, whose sum has no order."""
    return jax.ops.segment_sum(jnp.ones_like(segments), segments, num_segments=count)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_order(values: jax.Array, segments: jax.Array, like: jax.Array, most: int) -> jax.Array:
    number = jnp.arange(len(segments), dtype=segments.dtype)
    segments, source = jax.lax.sort((segments, number), num_keys=1, is_stable=True)

    def add(power: jax.Array, sums: jax.Array) -> jax.Array:
        before = number - (1 << power)
        # Sorted: where two places have one segment, so have all between them.
        joined = (before >= 0) & (segments[before] == segments)
        return sums + jnp.where(_as_column(joined, sums), sums[before], 0)

    passes = (min(most, len(segments)) - 1).bit_length()
    sums = jax.lax.fori_loop(0, passes, add, values[source])
    ends = jnp.append(segments[1:] != segments[:-1], True)
    # All others go beyond the last segment, each to a place of its own, and are dropped.
    count = len(like)
    place = jnp.where(ends & (segments >= 0) & (segments < count), segments, count + number)
    return like.at[place].set(sums, mode="drop", unique_indices=True)


def _as_column(mask: jax.Array, like: jax.Array) -> jax.Array:
    return mask.reshape(-1, *(1 for _ in like.shape[1:]))


def _ordered(
    values: jax.Array, segments: jax.Array, count: int, most: int | None = None
) -> jax.Array:
    like = jnp.zeros((count, *values.shape[1:]), values.dtype)
    return _in_order(values, segments, like, most or len(segments))


def _in_order_and_saved(
    values: jax.Array, segments: jax.Array, like: jax.Array, most: int
) -> tuple[jax.Array, jax.Array]:
    return _in_order(values, segments, like, most), segments


def _gradient_of_values(
    most: int, segments: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, None, jax.Array]:
    del most
    read = jnp.take(gradient, segments, axis=0, mode="fill", fill_value=0)
    return read, None, jnp.zeros_like(gradient)


_in_order.defvjp(_in_order_and_saved, _gradient_of_values)


@jax.custom_vjp
def _ordered_read(table: jax.Array, rows: jax.Array) -> jax.Array:
    return jnp.take(table, rows, axis=0)


def _ordered_read_and_saved(
    table: jax.Array, rows: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _ordered_read(table, rows), (rows, jnp.zeros((len(table), 0), table.dtype))


def _gradient_of_table(
    saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, None]:
    rows, like = saved
    flat = gradient.reshape(rows.size, -1)
    return _ordered(flat, rows.reshape(-1), len(like)), None


_ordered_read.defvjp(_ordered_read_and_saved, _gradient_of_table)
