"""A procedural captioned world: real video files whose every pixel and event is known."""

from __future__ import annotations

from tokenization.world.dataset import Truth, load_truth, write_split
from tokenization.world.render import Rendered, render
from tokenization.world.scenes import Scene, WorldSettings

__all__ = [
    "Rendered",
    "Scene",
    "Truth",
    "WorldSettings",
    "load_truth",
    "render",
    "write_split",
]
