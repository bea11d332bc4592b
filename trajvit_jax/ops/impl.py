"""The two ways in which exact operations are written: a fast path beside its plain formula.

Both ways of mask pooling and of resampler attention, and the resizing that they share, multiply
float32 numbers as such (`EXACT`), also on hardware whose default is narrower (TF32, bfloat16
passes): they could not be equal otherwise. So does the contrastive loss. The layers of models take
JAX's default.
"""

from __future__ import annotations

from typing import Literal, get_args

import jax

Impl = Literal["fast", "reference"]

EXACT = jax.lax.Precision.HIGHEST


def check_impl(impl: str) -> None:
    """Raises ValueError unless `impl` is 'fast' or 'reference'."""
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be 'fast' or 'reference', got {impl!r}")
