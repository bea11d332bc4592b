"""Kinetics-400: attentive probing, or zero-shot (paper, Tables 2 and 9).

Split: training videos train the head, validation videos test it.
Captions: none; zero-shot reads the classes' names in sentences.
Sampling: 4 views of 16 frames: quarters of 64 sampled frames; zero-shot one view of 16.
Paper, panda4m, top-1: probing TrajViT 55.6, ViT3D 53.4; zero-shot 42.4 and 42.0.
Cost: one pass of the model over the records, not measured; then the head, 43 s on 10,000 clips of
150 tokens of 384 numbers (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations kinetics --annotations=kinetics-400_val.csv \\
      --media=k400 --labels=label_map_k400.txt --output=k400/test.jsonl
  python -m tokenization.extract --input=k400/test.jsonl --split=test \\
      --output=data/kinetics400 \\
      --config=configs/tokenization/paper.py:frames=64
  ... and the same of the training list with --split=train

Command:
  python -m trajvit_jax.evals.probing --workdir=runs/panda4m --records=data/kinetics400 \\
      --config=configs/eval/kinetics400.py --classes=label_map_k400.txt
  python -m trajvit_jax.evals.classification --workdir=runs/panda4m --records=data/kinetics400 \\
      --config=configs/eval/kinetics400.py:zero_shot --classes=label_map_k400.txt
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Probing; with `zero_shot`, classification by sentences."""
    chosen = parse_arg(arg, zero_shot=False)
    common = {"dataset": "kinetics400", "split": "test"}
    if chosen.zero_shot:
        own = {"protocol": "classification", "prompts": "kinetics", "ensemble": "mean"}
    else:
        own = {"protocol": "probing", "train_split": "train", "views": 4}
    return ml_collections.ConfigDict(common | own).lock()
