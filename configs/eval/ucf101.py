"""UCF-101: attentive probing, or zero-shot (paper, Tables 2 and 9).

Split: trainlist01 trains the head, testlist01 tests it (the paper does not say which list).
Captions: none; zero-shot reads the classes' names in the sentences of Kinetics, as the released
program reads every set of classes; zero_shot,prompts=ucf101: in CLIP's own for UCF-101.
Sampling: 4 views of 16 frames: quarters of 64 sampled frames; zero-shot one view of 16.
Paper, panda4m, top-1: probing TrajViT 84.5, ViT3D 83.8; zero-shot 42.1 and 40.4.
Cost: one pass of the model over the records, not measured; then the head, 43 s on 10,000 clips of
150 tokens of 384 numbers (docs/EVALUATION.md).

Records:
  python -m tokenization.annotations ucf101 --annotations=testlist01.txt \\
      --media=UCF-101 --labels=classInd.txt --output=UCF-101/test.jsonl
  python -m tokenization.extract --input=UCF-101/test.jsonl --split=test \\
      --output=data/ucf101 \\
      --config=configs/tokenization/paper.py:frames=64
  ... and the same of the training list with --split=train

Command:
  python -m trajvit_jax.evals.probing --workdir=runs/panda4m --records=data/ucf101 \\
      --config=configs/eval/ucf101.py --classes=classInd.txt
  python -m trajvit_jax.evals.classification --workdir=runs/panda4m --records=data/ucf101 \\
      --config=configs/eval/ucf101.py:zero_shot --classes=classInd.txt
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Probing; with `zero_shot`, classification by sentences."""
    chosen = parse_arg(arg, zero_shot=False, prompts="kinetics")
    common = {"dataset": "ucf101", "split": "test"}
    if chosen.prompts != "kinetics" and not chosen.zero_shot:
        raise ValueError(f"prompts={chosen.prompts} is of zero_shot,prompts={chosen.prompts}")
    if chosen.zero_shot:
        own = {"protocol": "classification", "prompts": chosen.prompts, "ensemble": "mean"}
    else:
        own = {"protocol": "probing", "train_split": "train", "views": 4}
    return ml_collections.ConfigDict(common | own).lock()
