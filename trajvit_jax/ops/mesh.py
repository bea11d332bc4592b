"""The mesh of devices, as operations see it: which axes hold a batch, and what a device owns.

Under `jax.set_mesh`, arrays whose first axis is the batch's (videos, rows of slots, captions)
lie in equal parts on the devices of `BATCH`. Without a mesh everything here is the plain call.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import PartitionSpec

DATA, FSDP, TENSOR = "data", "fsdp", "tensor"
BATCH = (DATA, FSDP)
T = TypeVar("T")


def parts() -> int:
    """Into how many parts the ambient mesh cuts a batch; 1 without one."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else math.prod(mesh.shape[axis] for axis in BATCH)


def keep_sharded(x: T) -> T:
    """The same arrays, held to the batch's sharding: XLA might gather them otherwise."""
    if parts() == 1:
        return x
    return jax.lax.with_sharding_constraint(x, PartitionSpec(BATCH))


def everywhere(x: T) -> T:
    """The same arrays, whole on every device."""
    return x if parts() == 1 else jax.lax.with_sharding_constraint(x, PartitionSpec())


def by_device(function: Callable[..., T]) -> Callable[..., T]:
    """`function(whole, *batches)`, run by each device on its own part of the batches.

    For what XLA would not divide by itself: sums into segments whose numbers are data. `whole`
    is a pytree that every device has all of; the first axis of all other arrays, and of all
    results, is a batch's.
    """

    @functools.wraps(function)
    def run(whole: Any, *batches: Any) -> T:
        if parts() == 1:
            return function(whole, *batches)
        batch = PartitionSpec(BATCH)
        specs = (PartitionSpec(), *(batch for _ in batches))
        return jax.shard_map(function, in_specs=specs, out_specs=batch, check_vma=False)(
            whole, *batches
        )

    return run


def sum_by_device(function: Callable[..., T]) -> Callable[..., T]:
    """`function(*batches)`, run by each device on its own part; the sum of what they return.

    For sums over the batch whose order, or dtype, XLA would choose otherwise. The first axis of
    all arrays is a batch's; the sum is whole on every device.
    """

    @functools.wraps(function)
    def run(*batches: Any) -> T:
        if parts() == 1:
            return function(*batches)

        def own(*batches: Any) -> T:
            return jax.lax.psum(function(*batches), BATCH)

        specs = tuple(PartitionSpec(BATCH) for _ in batches)
        return jax.shard_map(own, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)(
            *batches
        )

    return run


def part_number() -> jax.Array | int:
    """Within `by_device`: which part of the batch this device has, counted from 0."""
    return 0 if parts() == 1 else jax.lax.axis_index(BATCH)


def all_parts(x: jax.Array) -> jax.Array:
    """Within `by_device`: the whole batch, gathered from all devices."""
    return x if parts() == 1 else jax.lax.all_gather(x, BATCH, tiled=True)
