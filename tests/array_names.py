"""Arrays by dotted names."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays under a prefix of their names, without it."""
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
