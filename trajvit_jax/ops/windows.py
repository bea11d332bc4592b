"""Attention inside square windows of a map."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float


def split_windows(
    x: Float[Array, "n h w c"], height: int, width: int
) -> Float[Array, "windows height width c"]:
    """Cuts maps into windows, row by row, map after map.

    Raises:
      ValueError: maps that windows do not tile.
    """
    n, h, w, c = x.shape
    if h % height or w % width:
        raise ValueError(f"windows of {height}x{width} cells do not tile maps of {h}x{w}")
    x = x.reshape(n, h // height, height, w // width, width, c)
    return x.swapaxes(2, 3).reshape(-1, height, width, c)


def merge_windows(
    x: Float[Array, "windows y x c"], height: int, width: int
) -> Float[Array, "n height width c"]:
    """Puts windows back together as maps of `height` x `width` cells.

    Raises:
      ValueError: maps that the windows do not tile.
    """
    _, y, x_, c = x.shape
    if height % y or width % x_:
        raise ValueError(f"windows of {y}x{x_} cells do not tile maps of {height}x{width}")
    x = x.reshape(-1, height // y, width // x_, y, x_, c)
    return x.swapaxes(2, 3).reshape(-1, height, width, c)


def attend_in_windows(
    query: Float[Array, "n y x d"],
    key: Float[Array, "n h w d"],
    value: Float[Array, "n h w d"],
    *,
    heads: int,
    window: int | None,
) -> Float[Array, "n y x d"]:
    """Every query attends to the keys of its own window; softmax in float32.

    Args:
      query: on the grid of the keys, or on a coarser one over the same picture, of whose cells
        every window holds a whole number.
      heads: how many parts of the d channels attend each on its own.
      window: cells of the key grid a side; None: one window, the whole map.

    Raises:
      ValueError: heads that do not divide the channels, windows that do not tile the maps.
    """
    n, h, w, d = key.shape
    if d % heads:
        raise ValueError(f"{heads} heads do not divide {d} channels")
    _, y, x, _ = query.shape
    side = (h, w) if window is None else (window, window)
    query_side = (side[0] * y // h, side[1] * x // w)

    def tokens(part: jax.Array, size: tuple[int, int]) -> jax.Array:
        windows = split_windows(part, *size)
        return windows.reshape(len(windows), -1, heads, d // heads)

    out = jax.nn.dot_product_attention(
        tokens(query, query_side), tokens(key, side), tokens(value, side)
    )
    return merge_windows(out.reshape(-1, *query_side, d), y, x)
