"""How many CPU cores of its host are this process's share."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tokenization.engines.devices import available_cores

_PER_HOST = "TRAJVIT_PROCESSES_PER_HOST"


def own_cores(env: Mapping[str, str] = os.environ) -> int:
    """The cores that this process may use, divided by the processes that may use the same ones.

    Args:
      env: where TRAJVIT_PROCESSES_PER_HOST may be. `launch/run_host.sh` sets it where several
        processes of a run share a host, but not under SLURM, which binds each to its own cores.

    Returns:
      1 or more.

    Raises:
      ValueError: it is no number of processes.
    """
    text = env.get(_PER_HOST, "1")
    if not text.isdigit() or int(text) < 1:
        raise ValueError(f"{_PER_HOST} must be a whole number from 1 on, but is {text!r}")
    return max(1, available_cores() // int(text))
