"""VATEX, zero-shot retrieval (paper, Tables 1, 10 and 11).

Split: public test (6,000 clips; the paper does not say which).
Captions: all 10 English ones of a clip, one by one.
Sampling: 16 frames, the middle ones of 16 equal parts of the video.
Paper, panda4m: TrajViT 36.2 txt2vid and 61.0 vid2txt, ViT3D 35.0 and 59.1 (R@5).
Cost: one pass of the model over the records, not measured; ranking is minutes even of 100,000
videos (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations vatex --annotations=vatex_public_test_english_v1.1.json \\
      --media=VATEX --output=VATEX/test.jsonl
  python -m tokenization.extract --input=VATEX/test.jsonl --split=test \\
      --output=data/vatex \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.retrieval --workdir=runs/panda4m --records=data/vatex \\
      --config=configs/eval/vatex.py
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
            "dataset": "vatex",
            "split": "test",
            "captions": chosen.captions,
        }
    ).lock()
