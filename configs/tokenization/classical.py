"""The embedded default: classical segmenter and flow tracker. No weights, no torch, no GPU.

Command:
  python -m tokenization.extract --input='videos/*.mp4' --output=records \\
      --config=configs/tokenization/classical.py

Arguments: frames, max_side, split (both, keyframes or stride), limit (frames in a clip, 0 = a
quarter of the video): classical.py:frames=8,split=keyframes
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Settings of `tokenization.extract.ExtractSettings`."""
    chosen = parse_arg(arg, frames=16, max_side=512, split="both", limit=0)
    return ml_collections.ConfigDict(
        {
            "pipeline": {
                "frames": chosen.frames,
                "max_side": chosen.max_side,
                "segmenter": "classical",
                "tracker": "flow",
                "split": chosen.split,
                "clip_limit": chosen.limit or None,
            },
            "record_size": 256,
            "shard_size": 64,
        }
    )
