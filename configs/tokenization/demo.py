"""The demo's data: a small procedural world, and how it is cut into trajectories.

Command:
  python -m trajvit_jax.demo --output=runs/demo

`world` are fields of `tokenization.world.scenes.WorldSettings`, `extract` those of
`tokenization.extract.ExtractSettings`.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Clips of 8 frames of 128x128 pixels, one or two objects."""
    chosen = parse_arg(arg, train=640, test=128, seed=0)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 2}
    # Frames are small and objects have one colour each: fewer superpixels, larger segments.
    config.extract = {
        "record_size": 128,
        "pipeline": {
            "frames": 8,
            "classical": {"superpixels": 200, "threshold": 5.0},
            "flow": {"superpixels": 200},
            # From the first frame alone: quick, and how the reported numbers were made.
            "discover": False,
        },
    }
    return config.lock()
