"""TrajViT in JAX: a video encoder that reads one token per object trajectory.

  import trajvit_jax
  model = trajvit_jax.load("demo")            # or a run's workdir, or a folder of weights
  model.embed_video(["a.mp4", "b.mp4"])       # float32[2, p], unit vectors
  model.embed_text("a large red star spins")  # float32[p]
  model.tokenize("a.mp4")                     # Trajectories: labels uint16[t, h, w]

Importing this loads nothing else: these names come from `trajvit_jax.api` when they are used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trajvit_jax.api import Encoded, Hit, Index, Model, available, load

__version__ = "0.1.0"
__all__ = ["Encoded", "Hit", "Index", "Model", "available", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("trajvit_jax.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
