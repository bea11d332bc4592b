"""YouCook2, temporal clip retrieval (paper, Table 3).

Split: validation.
Captions: one sentence a clip, found among those of its video.
Sampling: 16 frames of each clip.
Paper, panda4m: TrajViT 47.2 txt2vid and 50.0 vid2txt, ViT3D 46.8 and 50.0 (accuracy).
Cost: one pass of the model over the records, not measured.

Records:
  python -m tokenization.annotations youcook2 --annotations=youcookii_annotations_trainval.json \\
      --media=YouCook2 --split=validation --output=YouCook2/test.jsonl
  python -m tokenization.extract --input=YouCook2/test.jsonl --split=test \\
      --output=data/youcook2_clips \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.temporal_clips --workdir=runs/panda4m --records=data/youcook2_clips \\
      --config=configs/eval/youcook2_clips.py
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
            "dataset": "youcook2_clips",
            "split": "test",
            "least": chosen.least,
        }
    ).lock()
