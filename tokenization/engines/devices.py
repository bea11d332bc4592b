"""Which accelerators and cores this process may use, asked without loading a framework."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def available_cores() -> int:
    """CPU cores that this process may use: fewer than there are, in a container or a job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def visible_gpus(
    environment: Mapping[str, str] = os.environ, devices: Path = Path("/dev")
) -> tuple[str, ...]:
    """Names of the NVIDIA GPUs, as CUDA_VISIBLE_DEVICES has them.

    Args:
      environment: where CUDA_VISIBLE_DEVICES may be; it decides if it is set.
      devices: folder of the device files, which are counted otherwise.
    """
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        numbers = [path.name.removeprefix("nvidia") for path in devices.glob("nvidia[0-9]*")]
        return tuple(sorted(numbers, key=int))
    names = [name.strip() for name in named.split(",")]
    # CUDA ends the list at the first name that is none, as -1 is.
    usable = names[: names.index("-1")] if "-1" in names else names
    return tuple(name for name in usable if name)
