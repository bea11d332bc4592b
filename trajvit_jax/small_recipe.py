"""What the small configs share: models of 64 pixels that learn in minutes on two CPU cores."""

from __future__ import annotations

from typing import Any

import ml_collections


def small_run(
    *,
    model: str,
    steps: int,
    seed: int,
    words: int,
    length: int,
    frames: int = 8,
    image_size: int = 64,
    trajectories: int = 127,
    warmup: float = 0.1,
) -> ml_collections.ConfigDict:
    """A config that lacks its data, and what it wants otherwise: its caller sets them.

    Args:
      model: trajvit or vit3d.
      steps: updates in all.
      seed: of the run.
      words: of the vocabulary, which is learned from the captions.
      length: tokens of a caption.
      frames: of a video.
      image_size: pixels a side that the model sees.
      trajectories: that a video has at most.
      warmup: share of the steps.
    """
    transformer = {"width": 128, "heads": 4, "mlp": 512, "init_std": 0.08}
    config = ml_collections.ConfigDict()
    config.seed = seed
    config.steps = steps
    config.log_samples = False
    config.protocols = ()
    config.wandb = ""
    config.profile = {"start": 0, "steps": 3}
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.model = {
        "name": model,
        "image_size": image_size,
        "frames": frames,
        "projection": 128,
        "encoder": transformer | {"depth": 4, "unroll": 4},
        "trajvit": {
            "max_trajectories": trajectories,
            "feature_width": 32,
            "resnet": {"stem": 8, "widths": (8, 16, 32, 64), "depths": (1, 1, 1, 1)},
        },
        "text": transformer
        | {"vocabulary": words, "length": length, "positions": length, "depth": 2, "unroll": 2},
    }
    # Few steps: a shorter memory of squares than the paper's lets both models learn on every seed.
    config.optimizer = {
        "learning_rate": 1e-3,
        "beta2": 0.98,
        "weight_decay": 0.02,
        "warmup_fraction": warmup,
    }
    return config


def small_extraction(**pipeline: Any) -> dict[str, Any]:
    """Settings of an extraction: 8 frames of 128 pixels in few, large trajectories.

    Models that read 64 pixels see no more detail, and objects of the procedural world have one
    colour each: fewer superpixels, larger segments.

    Args:
      **pipeline: other settings of `tokenization.pipeline.PipelineSettings`.
    """
    return {
        "record_size": 128,
        "pipeline": {
            "frames": 8,
            "classical": {"superpixels": 200, "threshold": 5.0},
            "flow": {"superpixels": 200},
            # Not from three frames with their pieces joined, as by default: quicker, and how the
            # reported numbers were made.
            "discover": False,
        }
        | pipeline,
    }
