"""How the videos of the shipped model `trajvit_jax.load("demo")` become records, and yours too.

Command (the procedural world that it learned from, then its records, both splits):
  python -m tokenization.world --output=runs/pretrained/world --train=2176 --test=512 \\
      --frames=8 --max-objects=2
  for split in train test; do
    python -m tokenization.extract --input=runs/pretrained/world/$split/manifest.jsonl \\
        --split=$split --output=runs/pretrained/records \\
        --config=configs/tokenization/pretrained_demo.py
  done

Cost: 9 minutes of two busy cores for both splits. Expected: 2,176 and 512 records, 13
trajectories each on average.

The model reads 64 pixels: details that it cannot see need no trajectories.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.small_recipe import small_extraction


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Settings of `tokenization.extract.ExtractSettings`: 8 frames in few, large trajectories."""
    parse_arg(arg)
    return ml_collections.ConfigDict(small_extraction(max_side=128)).lock()
