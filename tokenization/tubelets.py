"""How many tokens space-time patches would take: what trajectories are compared with."""

from __future__ import annotations

FRAMES, SIDE = 2, 16
MODEL_SIZE = 224


def count_tubelets(frames: int, size: int = MODEL_SIZE) -> int:
    """Tokens of 2x16x16 tubelets (ViT3D) for `frames` frames of size x size pixels."""
    return -(-frames // FRAMES) * (size // SIDE) ** 2
