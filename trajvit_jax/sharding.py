"""One mesh of devices with named axes, and where every array of training lies on it.

`data` and `fsdp` divide the batch; `fsdp` also divides parameters and optimizer states (Rajbhandari
et al., ZeRO), which are gathered layer by layer where they are used; `tensor` divides the heads
and the MLP of every transformer layer (Shoeybi et al., Megatron-LM).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from trajvit_jax.ops.mesh import BATCH, DATA, FSDP, TENSOR

# By the last two names of a parameter: which of its last axes `tensor` and `fsdp` divide.
_RULES: Mapping[tuple[str, str], tuple[str | None, ...]] = {
    ("query_key_value", "kernel"): (FSDP, None, TENSOR),
    ("query_key_value", "bias"): (None, TENSOR),
    ("attention_out", "kernel"): (TENSOR, FSDP),
    ("mlp_in", "kernel"): (FSDP, TENSOR),
    ("mlp_in", "bias"): (TENSOR,),
    ("mlp_out", "kernel"): (TENSOR, FSDP),
    # By width: divided by words, a caption would be looked up everywhere and summed.
    ("word", "embedding"): (None, FSDP),
    # The language model's: it has no joint projection, and a gate.
    ("query", "kernel"): (FSDP, TENSOR),
    ("key", "kernel"): (FSDP, TENSOR),
    ("value", "kernel"): (FSDP, TENSOR),
    ("gate", "kernel"): (FSDP, TENSOR),
    ("table", "embedding"): (TENSOR, FSDP),
    ("head", "kernel"): (FSDP, TENSOR),
}
_SMALL = 2**14  # numbers: what is smaller is not worth gathering


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """How many devices each axis of the mesh has; -1 once: what the other two leave.

    Raises:
      ValueError: a size that is neither positive nor -1, or more than one -1.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = (self.data, self.fsdp, self.tensor)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise ValueError(
                f"mesh sizes must be at least 1, and one of them may be -1 (the rest), got {sizes}"
            )

    def shape(self, devices: int) -> tuple[int, int, int]:
        """(data, fsdp, tensor) on so many devices.

        Raises:
          ValueError: a mesh that these devices do not fill.
        """
        sizes = [self.data, self.fsdp, self.tensor]
        if -1 in sizes:
            others = -math.prod(sizes)
            sizes[sizes.index(-1)] = devices // others
        if math.prod(sizes) != devices:
            raise ValueError(
                f"a mesh of data={self.data}, fsdp={self.fsdp}, tensor={self.tensor} does not "
                f"fill {devices} devices; set mesh.data, mesh.fsdp and mesh.tensor so that their "
                f"product is {devices}, or one of them to -1"
            )
        return sizes[0], sizes[1], sizes[2]


def make_mesh(settings: MeshSettings, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over all devices of all processes, or over these.

    Raises:
      ValueError: devices that do not fill it.
    """
    devices = jax.devices() if devices is None else devices
    shape, axes, types = settings.shape(len(devices)), (DATA, FSDP, TENSOR), (AxisType.Auto,) * 3
    if devices[0].platform == "tpu":  # their order follows the wires between them
        return jax.make_mesh(shape, axes, axis_types=types, devices=devices)
    # JAX's own takes several hosts of GPUs for slices, and refuses those. `jax.devices()` come
    # process by process: each reads its batch in one piece, and axes that divide a host's devices
    # stay within it, where its processes are numbered one after the other.
    return Mesh(np.asarray(devices).reshape(shape), axes, axis_types=types)


def batch_parts(mesh: Mesh) -> int:
    """Into how many parts this mesh cuts a batch."""
    return math.prod(mesh.shape[axis] for axis in BATCH)


def of_batch(mesh: Mesh) -> NamedSharding:
    """The first axis is the batch's."""
    return NamedSharding(mesh, PartitionSpec(BATCH))


def partition(
    path: Sequence[str], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Where a parameter (or what the optimizer keeps of it) lies.

    Transformer layers and the word table follow their rules; of everything else that is large,
    `fsdp` divides the longest axis that it can. An axis whose length a mesh axis does not divide
    stays whole.

    Args:
      path: names from the outermost module to the parameter.
      shape: of the parameter; a leading axis of stacked layers is never divided.
      mesh: the devices.
    """
    axes: list[str | None] = [None] * len(shape)
    rule = _RULES.get((path[-2], path[-1])) if len(path) > 1 else None
    if rule is not None and len(shape) >= len(rule):
        axes[len(shape) - len(rule) :] = rule
    elif math.prod(shape) >= _SMALL:
        able = [i for i, size in enumerate(shape) if size % mesh.shape[FSDP] == 0]
        if able:
            axes[max(able, key=lambda i: shape[i])] = FSDP
    fits = (axis and size % mesh.shape[axis] == 0 for axis, size in zip(axes, shape, strict=True))
    return PartitionSpec(*(axis if fit else None for axis, fit in zip(axes, fits, strict=True)))


def shardings(tree: Any, mesh: Mesh) -> Any:
    """A sharding for every array (or shape) of a tree of parameters or optimizer states."""

    def of(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        names = [name for name in names if name != "value"]
        return NamedSharding(mesh, partition(names, leaf.shape, mesh))

    return jax.tree_util.tree_map_with_path(of, tree)


def part_of_process(mesh: Mesh) -> tuple[int, int]:
    """Which part of a batch this process reads, and how many parts processes read.

    Raises:
      ValueError: a mesh in which a process's devices have no parts of a batch of their own.
    """
    count = batch_parts(mesh)
    spans = of_batch(mesh).addressable_devices_indices_map((count,)).values()
    own = sorted({span[0].indices(count)[0] for span in spans})
    first, share = own[0], len(own)
    if own != list(range(first, first + share)) or first % share or count % share:
        raise ValueError(
            f"process {jax.process_index()} holds parts {own} of {count} of a batch, which it "
            "cannot read in one piece; let mesh.tensor divide the devices of a process"
        )
    return first // share, count // share


def check_batch(name: str, batch: int, group: int, mesh: Mesh, *, micro_batches: int = 1) -> None:
    """Checks that the devices can share a stream's batches.

    Args:
      name: of the stream.
      batch: videos of a step.
      group: videos that stay together, for they share rows.
      mesh: of the devices.
      micro_batches: parts of a step, each shared by all devices.

    Raises:
      ValueError: groups of videos that they cannot share evenly.
    """
    devices, parts = batch_parts(mesh), ""
    if micro_batches > 1:
        parts = f", in {micro_batches} micro-batches,"
    if batch % (group * devices * micro_batches):
        raise ValueError(
            f"stream {name!r}: {batch} videos in groups of {group}{parts} cannot be shared by "
            f"{devices} devices (mesh {dict(mesh.shape)}); take a batch that is a multiple of "
            f"{group * devices * micro_batches}, smaller groups, or a larger mesh.tensor"
        )


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Arrays of this process's part of a batch -> arrays of the whole batch, on the devices.

    A process holds the part that `part_of_process` says.
    """
    sharding = of_batch(mesh)

    def put(x: Any) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, batch)


def put_whole(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """An array of a batch that every process has whole -> the same array on the devices."""
    return jax.make_array_from_callback(x.shape, of_batch(mesh), lambda index: x[index])
