"""The world in which tracking quality is measured: moving camera, texture, cuts, occlusion.

Command:
  python -m benchmarks.tokenization_quality

Cost: not measured. Expected of its 40 clips (docs/TRACKING.md): mean tube IoU 0.876, 0.44 identity
switches an object, 49 trajectories a video.

Fixed before the first measurement and not tuned since: changing a value here changes what
every number printed by `python -m benchmarks.tokenization_quality` means.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """`clips` (40) and `seed` (0) can be given: `world_quality.py:clips=8`."""
    args = parse_arg(arg, clips=40, seed=0)
    return ml_collections.ConfigDict(
        {
            "clips": args.clips,
            "seed": args.seed,
            "split": "test",
            "world": {
                "width": 256,
                "height": 256,
                "frames": 16,
                "fps": 8,
                "min_objects": 3,
                "max_objects": 5,
                "sizes": (0.08, 0.12, 0.17),
                "min_travel": 0.15,
                "min_speed": 0.01,
                "max_speed": 0.04,
                "rotation_speed": 6.0,
                "moving_extras": 0.8,
                "object_texture": 0.25,
                "background_texture": 0.5,
                "camera_pan": 0.02,
                "camera_zoom": 0.006,
                "cut_probability": 0.3,
                "crf": 23,
            },
        }
    )
