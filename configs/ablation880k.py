"""TrajViT-B on 880 thousand videos of Panda-70M: the paper's ablations (§4.4, Tables 5 and 6).

Command, on one host of eight GPUs and on a pod (launch/README.md):
  launch/run_pod.sh --workdir=runs/ablation --processes-per-host=8 \\
      --config=configs/ablation880k.py:records=data/panda880k,evaluation=data/msrvtt
  launch/run_pod.sh --workdir=/runs/ablation --hosts=gpu1,gpu2 --processes-per-host=8 \\
      --config=configs/ablation880k.py:records=/data/panda880k,evaluation=/data/msrvtt

Table 5, each with records of its own where it says so (see configs/tokenization/paper.py):
  ViT3D                     :model=vit3d
  segmentation only         :model=segmentation_only   records by :tracker=none,split=stride,limit=1
  tracking only             :model=tracking_only       records by
                                             :segmenter=patches,tracker=patches,resolution=224
Segmentation only may lose segments: 16 frames of up to 128 make up to 2,048, and a video keeps its
1,023 largest, in a row of 1,024 slots; a run logs how many it dropped (`dropped`).
tokens=2048,slots=2049 keeps them all, in rows twice as long.
Table 6, the trajectories (the same model on other records):
  resolution 1024           records by :resolution=1024
  segments by SAM           records by :segmenter=sam2
  key frames only           records by :split=keyframes
  fixed stride only         records by :split=stride
Table 6, the encoder:
  no hierarchical features  :ablation=last_stage
  no position branch        :ablation=no_position
  Hiera-small for ResNet    :ablation=hiera
  mean over frames          :ablation=mean
  2 or 4 query tokens       :ablation=queries2, :ablation=queries4

Cost: 103,125 steps of 256 videos, 30 epochs; not measured, and not run here. Every row is trained
small by `python -m benchmarks.ablations` (docs/ABLATIONS.md).

The paper's results (SSV2, K400, average retrieval): TrajViT 22.7, 25.9, 17.8; ViT3D 17.2, 21.8,
12.0; segmentation only 16.4, 19.9, 17.0; tracking only 19.3, 18.1, 15.4. Retrieval of Table 6: 1024
pixels 18.0, SAM 16.7, key frames 17.6, stride 17.3, last stage 17.5, no position 17.4, Hiera 16.0,
mean 16.5, two queries 17.8, four 17.9.

Arguments (see `trajvit_jax.recipe.pretraining`): model (as in panda4m.py), fuse (of
token_learner), size (B), ablation, initial, records, videos (how many they hold), evaluation,
vocabulary, epochs or steps, batch, frames, tokens, group, rows, slots, micro_batches, threads,
workers, seed, debug.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(arg, videos=880_000, records="data/panda880k", size="B")
