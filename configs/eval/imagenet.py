"""ImageNet, zero-shot classification (paper, Table 12).

Split: validation (50,000 images).
Captions: the classes' names in the sentences of Kinetics, as the released program reads every set
of classes; prompts=imagenet: in CLIP's seven for images.
Sampling: an image is a video of one frame.
Paper, datacomp50m, top-5: ViT 77.7, TrajViT 74.9.
Cost: one pass of the model over the records, not measured.

Records:
  python -m tokenization.annotations imagenet --annotations=LOC_val_solution.csv \\
      --media=ILSVRC --labels=LOC_synset_mapping.txt --output=ILSVRC/test.jsonl
  python -m tokenization.extract --input=ILSVRC/test.jsonl --split=test \\
      --output=data/imagenet \\
      --config=configs/tokenization/paper.py

Command:
  python -m trajvit_jax.evals.classification --workdir=runs/datacomp50m --records=data/imagenet \\
      --config=configs/eval/imagenet.py --classes=LOC_synset_mapping.txt
Curated names: --classes=FILE with SYNSET<TAB>NAME a line.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import parse_arg


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """Several sentences a class."""
    chosen = parse_arg(arg, ensemble="mean", prompts="kinetics")
    return ml_collections.ConfigDict(
        {
            "protocol": "classification",
            "dataset": "imagenet",
            "split": "test",
            "frames": 1,
            "prompts": chosen.prompts,
            "ensemble": chosen.ensemble,
        }
    ).lock()
