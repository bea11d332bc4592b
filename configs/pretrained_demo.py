"""The shipped model `trajvit_jax.load("demo")`: a small TrajViT on the procedural world alone.

Command (records as configs/tokenization/pretrained_demo.py says):
  python -m trajvit_jax.main --workdir=runs/pretrained/demo --config=configs/pretrained_demo.py
  python -m trajvit_jax.export --workdir=runs/pretrained/demo --output=models/demo --dtype=float16

Cost: 8 minutes of two busy cores, and 9 for the records. Expected on 512 held-out clips: R@5 64.3
of captions, 63.7 of clips (chance 1.0; its card, trajvit_jax/pretrained/demo/README.md).

Arguments: model (trajvit or vit3d), records (their folder), steps, seed.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.small_recipe import small_run

# Of 8 videos with 13 trajectories on average; the smallest of those with most find no slot.
PACKING = {"group": 8, "rows": 1, "slots": 160}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment."""
    chosen = parse_arg(arg, model="trajvit", records="runs/pretrained/records", steps=800, seed=0)
    config = small_run(
        model=chosen.model,
        steps=chosen.steps,
        seed=chosen.seed,
        words=1000,
        length=36,
        warmup=0.05,
    )
    config.log_every = 10
    config.checkpoint_every = 50
    config.data = {
        "train": chosen.records,
        "packing": PACKING if chosen.model == "trajvit" else None,
        "batch": 32,
        "eval_batch": 32,
        "threads": 2,
        "cache": 4000,
        "max_bad": 0.01,
    }
    return config.lock()
