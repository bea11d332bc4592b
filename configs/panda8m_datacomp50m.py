"""TrajViT-L on 8 million videos and 50 million images in one run (paper §3.3, §4.2).

Images are videos of one frame. Steps of 256 videos and of 4,096 images alternate so that both
go through all their records equally often: 64 to 25.

Command, on a pod (launch/README.md):
  launch/run_pod.sh --workdir=/runs/joint --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/panda8m_datacomp50m.py:records=/data/panda8m,image_records=/data/datacomp50m,\\
evaluation=/data/msrvtt,vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of a tiny model (a minute on a CPU) on 16 records or more of each, the
videos with a split test beside train:
  python -m trajvit_jax.main --workdir=runs/try \\
      --config=configs/panda8m_datacomp50m.py:debug,records=VIDEOS,image_records=IMAGES,frames=8

Planned for 32 H100, as the paper's (supplementary §6): 937,500 steps of videos and 366,211 of
images, 30 epochs of each; the paper gives the epochs of all models, and not how it mixes. By the
cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 8.7 to 18.6
hours on 32, 34.6 to 65.1 on 8. To read as fast a host needs 19 to 40 cores on 32 GPUs, 21 to 40 on
8, of which one process keeps two to six busy (see there). Reading alone takes one process a host
88.2 to 98.4 hours on 4 hosts and 352.6 to 393.8 on 1, eight a host 11 to 12.3 and 44.1 to 49.2
(extrapolated from two cores).

The paper's result (Table 11, TrajViT-L, text to video / video to text): ActivityNet 53.57 / 53.36,
VATEX 50.38 / 75.10, MSR-VTT 47.38 / 79.96, Charades 24.80 / 22.01. Its ViT3D-L (43.62 / 44.65,
47.16 / 70.70, 41.16 / 68.74, 21.25 / 20.50) is trained on images before videos, not together:
configs/panda8m_from_images.py; model=vit3d is refused here.

Arguments (see `trajvit_jax.recipe.pretraining`): model (trajvit or automerge), size (S, B, L, H),
ablation (of trajvit's encoder), initial (what the run starts from), records and image_records
(folders with ':' between them), videos and images (how many they hold), evaluation, vocabulary,
epochs or steps, batch, image_batch, frames, tokens (trajectories of a video), group (videos, or
images, that share rows of slots), rows and slots (of a group of videos), image_slots (of a group of
images), micro_batches, threads, workers, seed, debug.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(
        arg,
        videos=8_000_000,
        records="data/panda8m",
        images=50_000_000,
        image_records="data/datacomp50m",
    )
