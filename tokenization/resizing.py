"""The size rule and the nearest-neighbour resize that all label maps share."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer


def fit(width: int, height: int, longest: int | None) -> tuple[int, int]:
    """(width, height) shrunk, never enlarged, so that neither side is over `longest`.

    The aspect stays, up to rounding; no side gets under one pixel. None = as it is.
    """
    scale = min(1.0, (longest or max(width, height)) / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def resize_labels(
    labels: Integer[np.ndarray, "*t _ _"], height: int, width: int
) -> Integer[np.ndarray, "*t {height} {width}"]:
    """Nearest-neighbour resize, ids kept; enlarging and shrinking back is the identity."""
    old_height, old_width = labels.shape[-2:]
    rows = ((np.arange(height) + 0.5) * old_height / height).astype(np.int64)
    columns = ((np.arange(width) + 0.5) * old_width / width).astype(np.int64)
    return labels[..., rows[:, None], columns]
