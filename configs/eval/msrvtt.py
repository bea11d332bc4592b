"""MSR-VTT, zero-shot retrieval (paper, Tables 1, 10 and 11).

Split: test of the full set (2,990 clips), or 1k-A (1,000).
Captions: all 20 of a clip, one by one; captions=first for 1k-A, whose list has one.
Sampling: 16 frames, the middle ones of 16 equal parts of the video.
Paper, panda4m: TrajViT 31.7 txt2vid and 61.0 vid2txt, ViT3D 30.9 and 56.5 (R@5).
Cost: one pass of the model over the records, not measured; ranking is minutes even of 100,000
videos (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations msrvtt --annotations=test_videodatainfo.json \\
      --media=MSRVTT --split=test --output=MSRVTT/test.jsonl
  python -m tokenization.extract --input=MSRVTT/test.jsonl --split=test \\
      --output=data/msrvtt \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.retrieval --workdir=runs/panda4m --records=data/msrvtt \\
      --config=configs/eval/msrvtt.py
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """All captions of a clip are right answers."""
    chosen = parse_arg(arg, captions="all")
    return ml_collections.ConfigDict(
        {
            "protocol": "retrieval",
            "dataset": "msrvtt",
            "split": "test",
            "captions": chosen.captions,
        }
    ).lock()
