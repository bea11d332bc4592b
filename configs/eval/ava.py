"""AVA v2.2, spatio-temporal action detection (paper, Table 3, supplementary section 9).

Split: train trains the head, val tests it.
Captions: none; 60 actions count.
Sampling: 16 frames of the 3 seconds around an annotated frame, which is one of them.
Paper, panda4m, frame mAP: TrajViT 13.7, ViT3D 10.6.
Cost: one pass of the model over the records of each split, not measured; then the head.

Records:
  python -m tokenization.annotations ava --annotations=ava_val_v2.2.csv \\
      --media=ava \\
      --labels=ava_action_list_v2.2_for_activitynet_2019.pbtxt --per=keyframe \\
      --excluded=ava_val_excluded_timestamps_v2.2.csv --output=ava/test.jsonl
  python -m tokenization.extract --input=ava/test.jsonl --split=test \\
      --output=data/ava \\
      --config=configs/tokenization/paper.py
  ... and the same of ava_train_v2.2.csv with --split=train

Command:
  python -m trajvit_jax.evals.detection --workdir=runs/panda4m --records=data/ava \\
      --config=configs/eval/ava.py \\
      --classes=ava_action_list_v2.2_for_activitynet_2019.pbtxt
Boxes of a person detector: --boxes=FILE.csv, those with a score of 0.8 and more. All pairs of a
box and an action count; with --most-pairs=50 the best of a frame, as in ActivityNet's program.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Annotated boxes, or those of a person detector."""
    chosen = parse_arg(arg, boxes="")
    return ml_collections.ConfigDict(
        {
            "protocol": "detection",
            "dataset": "ava",
            "split": "test",
            "train_split": "train",
            "inside": 0.8,
            "iou": 0.5,
            "boxes": chosen.boxes,
        }
    ).lock()
