"""The data of configs/real_and_world.py: the procedural world, and how all clips become records.

Command:
  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.real_learning --output=runs/real

Cost: of records alone not measured; with both models 42 minutes of two busy cores
(docs/REAL_LEARNING.md). Expected: records of three sources in runs/real/records.

`world` are fields of `tokenization.world.scenes.WorldSettings`, `extract` those of
`tokenization.extract.ExtractSettings`, for real clips too: sources that share batches need
records of one size. Arguments: train and test (clips of the world), seed (of the world).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.small_recipe import small_extraction


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The demo's world; clips of 8 frames in few, large trajectories."""
    chosen = parse_arg(arg, train=640, test=128, seed=0)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 2}
    config.extract = small_extraction(max_side=128)
    return config.lock()
