"""ActivityNet Captions, temporal clip retrieval (paper, Table 3).

Split: val_1: 17,505 described clips of 4,917 videos.
Captions: one sentence a clip, found among those of its video.
Sampling: 16 frames of each clip.
Paper, panda4m: TrajViT 39.6 txt2vid and 42.5 vid2txt, ViT3D 39.3 and 42.3 (accuracy).
Cost: one pass of the model over the records, not measured.

Records:
  python -m tokenization.annotations activitynet --annotations=val_1.json \\
      --media=ActivityNet --per=event --output=ActivityNet/test.jsonl
  python -m tokenization.extract --input=ActivityNet/test.jsonl --split=test \\
      --output=data/activitynet_clips \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.temporal_clips --workdir=runs/panda4m \\
      --records=data/activitynet_clips --config=configs/eval/activitynet_clips.py
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Every video counts alike, whatever its number of clips."""
    chosen = parse_arg(arg, least=1)
    return ml_collections.ConfigDict(
        {
            "protocol": "temporal_clips",
            "dataset": "activitynet_clips",
            "split": "test",
            "least": chosen.least,
        }
    ).lock()
