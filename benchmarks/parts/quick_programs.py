"""Programs that compile in half of the time and run slower: where only what they are counts."""

from __future__ import annotations

import os
from collections.abc import Mapping

import jax


def quick_programs(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a process that compiles so: machine code alone is left as it comes.

    What XLA does to a program before, and so its operations, exchanges and memory, is the same.
    """
    flags = environment.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 11):  # Later ones have this one, quick, emitter alone.
        flags += " --xla_cpu_use_fusion_emitters=false"
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": flags.strip()}
    return {**environment, **quick}


def use_quick_programs() -> None:
    """The same for this process, before it asks for a device."""
    os.environ.update(quick_programs())
    jax.config.update("jax_disable_most_optimizations", True)  # JAX has read its variables
