"""ActivityNet Captions with more frames (paper, Fig. 6).

Split: val_1.
Captions: one paragraph a video.
Sampling: 16, 32, 64 and 128 frames: records of each, or of 128 that give fewer.
The paper draws curves and prints no numbers.
Cost: one pass of the model over the records for each number of frames, not measured.

Records:
  python -m tokenization.annotations activitynet --annotations=val_1.json \\
      --media=ActivityNet --output=ActivityNet/test.jsonl
  python -m tokenization.extract --input=ActivityNet/test.jsonl --split=test \\
      --output=data/activitynet_128 \\
      --config=configs/tokenization/classical.py:frames=128

Command:
  python -m trajvit_jax.evals.scaling --workdir=runs/panda4m --records=data/activitynet_128 \\
      --config=configs/eval/activitynet_scaling.py
Numbers of frames: --at=16,32,64,128.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Numbers of frames, with commas, are an option: --at."""
    chosen = parse_arg(arg, at="16,32,64,128")
    return ml_collections.ConfigDict(
        {
            "protocol": "scaling",
            "dataset": "activitynet",
            "split": "test",
            "at": chosen.at,
            "captions": "paragraph",
        }
    ).lock()
