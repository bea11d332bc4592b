"""The extraction as the released program does it, where that departs from the paper.

Command:
  python -m tokenization.extract --input='videos/*.mp4' --output=records \\
      --config=configs/tokenization/released.py

Cost: not measured. Expected: what the released program makes; how near it comes is not measured.

Departures (github.com/RAIVNLab/trajvit, traj_gen/training/pipeline.py): clips of a quarter of the
video at a fixed stride, whatever is seen; segments of two clips are one object from an IoU of 0.5
on, and several may claim the same one. With `:keyframes`, clips start at cuts instead, found by an
adaptive HSV, an HSV and a luminance histogram detector, two of three, and are not split. Boundaries
(0.2), the 128 largest segments of more than 16 pixels, and 5x5 growth, twice, are as in the paper;
here segments do not grow over each other, which the released masks do.

Arguments: frames, resolution, keyframes, shard_size (videos in a shard).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Settings of `tokenization.extract.ExtractSettings`."""
    chosen = parse_arg(arg, frames=16, resolution=512, keyframes=False, shard_size=64)
    return ml_collections.ConfigDict(
        {
            "pipeline": {
                "frames": chosen.frames,
                "max_side": chosen.resolution,
                "segmenter": "directsam",
                "tracker": "sam2",
                "split": "keyframes" if chosen.keyframes else "stride",
                "keyframes": {"detectors": "released"},
                "link_iou": 0.5,
                "link_rule": "many_to_one",
                "learned": {
                    "directsam": {"resolution": chosen.resolution},
                    "sam2": {"resolution": chosen.resolution},
                },
            },
            "record_size": 256,
            "shard_size": chosen.shard_size,
        }
    )
