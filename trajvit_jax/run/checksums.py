"""Checksums of the values of arrays, computed where the arrays lie.

They do not depend on the sharding: sums of whole numbers come out the same in any order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def named(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def checksums(tree: Any) -> dict[str, int]:
    """A checksum of 32 bits of each array: the bits of its numbers, times odd weights, summed.

    One changed number always changes it, and several do but for one chance in 2^32.
    """
    return {name: int(x) for name, x in jax.device_get(jax.tree.map(_of, named(tree))).items()}


@jax.jit
def _of(x: jax.Array) -> jax.Array:
    if x.dtype == jnp.bool_:
        x = x.astype(jnp.uint8)
    bits = jnp.dtype(f"uint{8 * min(4, x.dtype.itemsize)}")
    words = jax.lax.bitcast_convert_type(x, bits).astype(jnp.uint32)
    position = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):
        position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(
            jnp.uint32, words.shape, axis
        )
    # Odd, so that no change of one number is lost; mixed, so that neighbours do not cancel out.
    weights = (position * jnp.uint32(0x9E3779B1)) | jnp.uint32(1)
    return jnp.sum(words * weights, dtype=jnp.uint32)
