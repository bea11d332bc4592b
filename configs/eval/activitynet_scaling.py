"""ActivityNet Captions with more frames (paper, Fig. 6).

Split: val_1.
Captions: one paragraph a video.
Sampling: 16, 32, 64, 128 and 256 frames: records of each, or of 256 that give fewer.
The paper draws curves and prints no numbers; in its time and FLOPs trajectories are made, too,
which this command does not do: see python -m benchmarks.end_to_end.
Cost: one pass of the model over the records for each number of frames, not measured.

Records:
  python -m tokenization.annotations activitynet --annotations=val_1.json \\
      --media=ActivityNet --output=ActivityNet/test.jsonl
  python -m tokenization.extract --input=ActivityNet/test.jsonl --split=test \\
      --output=data/activitynet_256 \\
      --config=configs/tokenization/paper.py:frames=256

Command:
  python -m trajvit_jax.evals.scaling --workdir=runs/panda4m --records=data/activitynet_256 \\
      --config=configs/eval/activitynet_scaling.py
Numbers of frames: --at=16,32,64,128,256.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Numbers of frames, with commas, are an option: --at."""
    chosen = parse_arg(arg, at="16,32,64,128,256")
    return ml_collections.ConfigDict(
        {
            "protocol": "scaling",
            "dataset": "activitynet",
            "split": "test",
            "at": chosen.at,
            "captions": "paragraph",
        }
    ).lock()
