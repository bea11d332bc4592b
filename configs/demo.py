"""TrajViT and ViT3D on the procedural world: minutes on two CPU cores.

Command (after `make demo`, or `python -m trajvit_jax.demo --output=runs/demo`, has made records):
  python -m trajvit_jax.main --config=configs/demo.py --workdir=runs/mine
  python -m trajvit_jax.main --config=configs/demo.py:model=vit3d --workdir=runs/mine_vit3d

On your own captioned records (16 frames each, splits train and test):
  python -m trajvit_jax.main --workdir=runs/own \\
      --config=configs/demo.py:records=runs/records,frames=16,trajectories=255

Arguments: model (trajvit or vit3d), records (their folder), frames, trajectories (slots for
them), steps, seed, image_size (pixels a side that models see), cache (clips that stay in memory),
batch, debug (fewer layers: to see it run).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


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
    depth = 2 if chosen.debug else 4
    config = ml_collections.ConfigDict()
    config.seed = chosen.seed
    config.steps = chosen.steps
    config.log_every = 5
    config.log_samples = False
    config.wandb = ""
    config.profile = {"start": 0, "steps": 3}
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.checkpoint_every = 50
    config.model = {
        "name": chosen.model,
        "image_size": chosen.image_size,
        "frames": chosen.frames,
        "projection": 128,
        "encoder": {
            "width": 128,
            "depth": depth,
            "heads": 4,
            "mlp": 512,
            "init_std": 0.08,
            "unroll": 1 if chosen.debug else depth,
        },
        "trajvit": {
            "max_trajectories": chosen.trajectories,
            "feature_width": 32,
            "resnet": {"stem": 8, "widths": (8,), "depths": (1,)}
            if chosen.debug
            else {"stem": 8, "widths": (8, 16, 32, 64), "depths": (1, 1, 1, 1)},
        },
        "text": {
            "vocabulary": 1000,
            "length": 40,
            "positions": 40,
            "width": 128,
            "depth": 1 if chosen.debug else 2,
            "heads": 4,
            "mlp": 512,
            "init_std": 0.08,
            "unroll": 1 if chosen.debug else 2,
        },
    }
    config.data = {
        "train": chosen.records,
        "batch": chosen.batch,
        "eval_batch": chosen.batch,
        "threads": 2,
        "cache": chosen.cache,
        "max_bad": 0.01,
    }
    # Few steps: a lower rate and a shorter memory of squares let both models learn on every seed.
    config.optimizer = {
        "learning_rate": 1e-3,
        "beta2": 0.98,
        "weight_decay": 0.02,
        "warmup_fraction": 0.1,
    }
    return config.lock()
