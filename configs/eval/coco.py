"""COCO, zero-shot image retrieval (paper, Table 12).

Split: Karpathy's test (5,000 images).
Captions: all 5 of an image, one by one.
Sampling: an image is a video of one frame.
Paper, datacomp50m, R@5: ViT 73.6 image to text and 58.3 text to image, TrajViT 71.1 and 55.5.
Cost: one pass of the model over the records, not measured; ranking is minutes even of 100,000
videos (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations coco --annotations=dataset_coco.json \\
      --media=coco --split=test --output=coco/test.jsonl
  python -m tokenization.extract --input=coco/test.jsonl --split=test \\
      --output=data/coco \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.retrieval --workdir=runs/datacomp50m --records=data/coco \\
      --config=configs/eval/coco.py
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """vid2txt is from images to captions, txt2vid back."""
    chosen = parse_arg(arg, captions="all")
    return ml_collections.ConfigDict(
        {
            "protocol": "retrieval",
            "dataset": "coco",
            "split": "test",
            "frames": 1,
            "captions": chosen.captions,
        }
    ).lock()
