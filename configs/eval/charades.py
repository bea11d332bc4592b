"""Charades, zero-shot retrieval (paper, Tables 1, 10 and 11).

Split: test (1,863 videos).
Captions: one paragraph: the descriptions of a video; captions=all for one by one.
Sampling: 16 frames, the middle ones of 16 equal parts of the video.
Paper, panda4m: TrajViT 14.9 txt2vid and 14.8 vid2txt, ViT3D 12.9 and 12.6 (R@5).
Cost: one pass of the model over the records, not measured; ranking is minutes even of 100,000
videos (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations charades --annotations=Charades_v1_test.csv \\
      --media=Charades --output=Charades/test.jsonl
  python -m tokenization.extract --input=Charades/test.jsonl --split=test \\
      --output=data/charades \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.retrieval --workdir=runs/panda4m --records=data/charades \\
      --config=configs/eval/charades.py
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
            "dataset": "charades",
            "split": "test",
            "captions": chosen.captions,
        }
    ).lock()
