"""How things move beside the camera: what a smooth motion of the whole picture does not explain."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32

from tokenization.trackers.optical_flow import Origins

_EVERY = 3  # pixels from one that is looked at to the next
_ROUNDS = 8
_SHARPEST = 0.3  # pixels: rounding of displacements


def own_motion(went: Origins) -> Float32[np.ndarray, "h w 2"]:
    """Displacement (x, y) of each pixel until another frame, less that of the camera.

    The camera's is affine in the place: the one that most of the sure pixels follow, by
    iteratively reweighted least squares (Geman-McClure weights, scaled by the median residual).

    Args:
      went: where the pixels are in the other frame.
    """
    height, width = went.rows.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    moved = np.dstack([went.columns - x, went.rows - y])
    place = np.dstack([np.ones_like(x), x / width - 0.5, y / height - 0.5])
    looked = np.zeros_like(went.sure)
    looked[::_EVERY, ::_EVERY] = went.sure[::_EVERY, ::_EVERY]
    known, seen = place[looked].astype(np.float64), moved[looked].astype(np.float64)
    camera = np.zeros((3, 2))
    weights = np.ones(len(known))
    for _ in range(_ROUNDS if len(known) >= 3 else 0):
        weighted = known * weights[:, None]
        # A camera that the sure pixels do not tell stands still.
        camera = np.linalg.solve(weighted.T @ known + 1e-6 * np.eye(3), weighted.T @ seen)
        residual = np.linalg.norm(seen - known @ camera, axis=1)
        scale = max(_SHARPEST, 1.5 * float(np.median(residual)))
        weights = 1 / np.square(1 + np.square(residual / scale))
    return moved - (place @ camera).astype(np.float32)
