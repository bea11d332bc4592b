"""What all processes of a run say alike: was any of them asked to stop? what does the first see?"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec


class Agreement:
    """One process answers at once; several answer a step later, all alike at the same step.

    The answer travels with the steps that the devices compute anyway, so nobody waits for it.

    Attributes:
      reached: whether the last answer was yes.
    """

    def __init__(self, mesh: Mesh):
        self._mesh = mesh
        self._everyone = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        self._devices = mesh.local_mesh.size
        everywhere = NamedSharding(mesh, PartitionSpec())
        self._any = jax.jit(jnp.any, out_shardings=everywhere)
        self._asked: jax.Array | None = None
        self.reached = False

    def ask(self, mine: bool) -> bool:
        """Whether any process said yes: now, or, in several processes, in the call before."""
        if jax.process_count() == 1:
            self.reached = mine
            return mine
        votes = np.full(self._devices, mine)
        # Whoever asks may be at work on a mesh of its own: a head is trained on one device.
        with jax.set_mesh(self._mesh):
            asked = self._any(jax.make_array_from_process_local_data(self._everyone, votes))
        before, self._asked = self._asked, asked
        self.reached = before is not None and bool(before)
        return self.reached


def from_first_process(value: int) -> int:
    """The number that process 0 has: another's view of a network folder may be older."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def numbers_of_first_process(values: Mapping[str, float]) -> dict[str, float]:
    """The numbers that process 0 has, of names that all have: clocks and sums of others differ."""
    if jax.process_count() == 1 or not values:
        return dict(values)
    own = np.array(list(values.values()), np.float64)
    # As whole numbers: JAX would round to float32.
    sent = multihost_utils.broadcast_one_to_all(own.view(np.uint32))
    return dict(zip(values, np.asarray(sent).view(np.float64).tolist(), strict=True))
