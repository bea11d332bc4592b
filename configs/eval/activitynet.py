"""ActivityNet Captions, zero-shot paragraph retrieval (paper, Tables 1, 10 and 11).

Split: val_1 (4,917 videos).
Captions: one paragraph: all sentences of a video in the order of time.
Sampling: 16 frames, the middle ones of 16 equal parts of the video.
Paper, panda4m: TrajViT 38.6 txt2vid and 38.4 vid2txt, ViT3D 35.3 and 34.5 (R@5).
Cost: one pass of the model over the records, not measured; ranking is minutes even of 100,000
videos (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations activitynet --annotations=val_1.json \\
      --media=ActivityNet --output=ActivityNet/test.jsonl
  python -m tokenization.extract --input=ActivityNet/test.jsonl --split=test \\
      --output=data/activitynet \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.retrieval --workdir=runs/panda4m --records=data/activitynet \\
      --config=configs/eval/activitynet.py
A paragraph longer than the text side reads is cut: 77 tokens in the paper's models.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """One paragraph a video."""
    chosen = parse_arg(arg, captions="paragraph")
    return ml_collections.ConfigDict(
        {
            "protocol": "retrieval",
            "dataset": "activitynet",
            "split": "test",
            "captions": chosen.captions,
        }
    ).lock()
