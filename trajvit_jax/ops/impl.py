"""The two ways in which exact operations are written: a fast path beside its plain formula."""

from __future__ import annotations

from typing import Literal, get_args

Impl = Literal["fast", "reference"]


def check_impl(impl: str) -> None:
    """Raises ValueError unless `impl` is 'fast' or 'reference'."""
    if impl not in get_args(Impl):
        raise ValueError(f"impl must be 'fast' or 'reference', got {impl!r}")
