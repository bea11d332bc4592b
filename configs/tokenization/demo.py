"""The demo's data: a small procedural world, and how it is cut into trajectories.

Command:
  python -m trajvit_jax.demo --output=runs/demo

Cost: a part of the under 6 minutes that `make demo` takes on two free cores. Expected: 640 and 128
clips, 12.4 tokens of TrajViT each on average.

`world` are fields of `tokenization.world.scenes.WorldSettings`, `extract` those of
`tokenization.extract.ExtractSettings`.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.small_recipe import small_extraction


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Clips of 8 frames of 128x128 pixels, one or two objects."""
    chosen = parse_arg(arg, train=640, test=128, seed=0)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 2}
    config.extract = small_extraction()
    return config.lock()
