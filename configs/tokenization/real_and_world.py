"""The data of configs/real_and_world.py: the procedural world, and how all clips become records.

Command:
  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.real_learning --output=runs/real

`world` are fields of `tokenization.world.scenes.WorldSettings`, `extract` those of
`tokenization.extract.ExtractSettings`, for real clips too: sources that share batches need
records of one size. Arguments: train and test (clips of the world), seed (of the world).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The demo's world; clips of 8 frames in few, large trajectories."""
    chosen = parse_arg(arg, train=640, test=128, seed=0)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 2}
    # The models read 64 pixels: details that they cannot see need no trajectories.
    config.extract = {
        "record_size": 128,
        "pipeline": {
            "frames": 8,
            "max_side": 128,
            "classical": {"superpixels": 200, "threshold": 5.0},
            "flow": {"superpixels": 200},
            # From the first frame alone: quick, and how the reported numbers were made.
            "discover": False,
        },
    }
    return config.lock()
