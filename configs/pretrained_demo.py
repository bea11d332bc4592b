"""The shipped model `trajvit_jax.load("demo")`: a small TrajViT on the procedural world alone.

Command (records as configs/tokenization/pretrained_demo.py says):
  python -m trajvit_jax.main --workdir=runs/pretrained/demo --config=configs/pretrained_demo.py
  python -m trajvit_jax.export --workdir=runs/pretrained/demo --output=models/demo --dtype=float16

Arguments: model (trajvit or vit3d), records (their folder), steps, seed.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg

# Of 8 videos with 13 trajectories on average; the smallest of those with most find no slot.
PACKING = {"group": 8, "rows": 1, "slots": 160}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment."""
    chosen = parse_arg(arg, model="trajvit", records="runs/pretrained/records", steps=800, seed=0)
    config = ml_collections.ConfigDict()
    config.seed = chosen.seed
    config.steps = chosen.steps
    config.log_every = 10
    config.log_samples = False
    config.wandb = ""
    config.profile = {"start": 0, "steps": 3}
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.checkpoint_every = 50
    config.model = {
        "name": chosen.model,
        "image_size": 64,
        "frames": 8,
        "projection": 128,
        "encoder": {
            "width": 128,
            "depth": 4,
            "heads": 4,
            "mlp": 512,
            "init_std": 0.08,
            "unroll": 4,
        },
        "trajvit": {
            "max_trajectories": 127,
            "feature_width": 32,
            "resnet": {"stem": 8, "widths": (8, 16, 32, 64), "depths": (1, 1, 1, 1)},
        },
        "text": {
            "vocabulary": 1000,
            "length": 36,
            "positions": 36,
            "width": 128,
            "depth": 2,
            "heads": 4,
            "mlp": 512,
            "init_std": 0.08,
            "unroll": 2,
        },
    }
    config.data = {
        "train": chosen.records,
        "packing": PACKING if chosen.model == "trajvit" else None,
        "batch": 32,
        "eval_batch": 32,
        "threads": 2,
        "cache": 4000,
        "max_bad": 0.01,
    }
    config.optimizer = {
        "learning_rate": 1e-3,
        "beta2": 0.98,
        "weight_decay": 0.02,
        "warmup_fraction": 0.05,
    }
    return config.lock()
