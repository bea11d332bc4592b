"""TrajViT and ViT3D on the procedural world: minutes on two CPU cores.

Command (after `make demo`, or `python -m trajvit_jax.demo --output=runs/demo`, has made records):
  python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine
  python -m trajvit_jax.main --config=configs/demo.py:model=vit3d --workdir=runs/mine_vit3d

On your own captioned records (16 frames each, splits train and test):
  python -m trajvit_jax.main --workdir=runs/own \\
      --config=configs/demo.py:records=runs/records,frames=16,trajectories=255

Cost: `make demo` takes under 6 minutes on two free cores, both models and their data together.
Expected, of 200 steps: held-out R@5 of TrajViT 54.7 and 52.3, of ViT3D 51.6 and 45.3 (chance 3.9);
on another processor TrajViT had 51.6 and 47.7, and over three seeds 39.8 to 59.4, by an earlier
tracker.

Arguments: model (trajvit or vit3d), records (their folder), frames, trajectories (slots for
them), steps, seed, image_size (pixels a side that models see), cache (clips that stay in memory),
batch, debug (fewer layers: to see it run).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg
from trajvit_jax.small_recipe import small_run


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The demo's experiment, small in every dimension."""
    chosen = parse_arg(
        arg,
        model="trajvit",
        records="runs/demo/records",
        frames=8,
        trajectories=31,
        steps=200,
        seed=0,
        image_size=64,
        cache=1000,
        batch=32,
        debug=False,
    )
    config = small_run(
        model=chosen.model,
        steps=chosen.steps,
        seed=chosen.seed,
        words=1000,
        length=40,
        frames=chosen.frames,
        image_size=chosen.image_size,
        trajectories=chosen.trajectories,
    )
    config.log_every = 5
    config.checkpoint_every = 50
    if chosen.debug:
        config.model.encoder.update({"depth": 2, "unroll": 1})
        config.model.trajvit.resnet.update({"widths": (8,), "depths": (1,)})
        config.model.text.update({"depth": 1, "unroll": 1})
    config.data = {
        "train": chosen.records,
        "batch": chosen.batch,
        "eval_batch": chosen.batch,
        "threads": 2,
        "cache": chosen.cache,
        "max_bad": 0.01,
    }
    return config.lock()
