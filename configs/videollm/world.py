"""The clips that `benchmarks.videollm` asks questions about, and how they are cut.

Command:
  python -m benchmarks.videollm --output=runs/videollm

As configs/tokenization/demo.py, with up to three objects, so that there is something to count.

Arguments: train and test (clips of each split), seed.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Clips of 8 frames of 128x128 pixels, one to three objects."""
    chosen = parse_arg(arg, train=2400, test=400, seed=0)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 3}
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
