"""TrajViT-L, or a ViT of images, on 50 million captioned images (paper, supplementary §13).

Command, on a pod (launch/README.md):
  launch/run_pod.sh --workdir=/runs/images --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/datacomp50m.py:image_records=/data/datacomp50m,evaluation=/data/coco,\\
vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of a tiny model (a minute on a CPU) on 16 records of images or more, with
a split test beside train:
  python -m trajvit_jax.main --workdir=runs/try \\
      --config=configs/datacomp50m.py:debug,image_records=IMAGES

Planned for 32 H100, as the paper's (supplementary §6): 366,211 steps of 4,096 images, 30 epochs. By
the cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 6.5 to
12.5 hours on 32, 25.8 to 47.3 on 8; with model=vit 12.2 to 22.7 on 32. To read as fast a host needs
12 to 23 cores on 32 GPUs, 13 to 23 on 8, of which one process keeps two busy (see there). Reading
alone takes one process a host 54.8 to 65.1 hours on 4 hosts and 219.3 to 260.4 on 1, eight a host
6.9 to 8.1 and 27.4 to 32.6 (extrapolated from two cores).

The paper's result (Table 12, TrajViT): ImageNet top-5 74.9, COCO R@5 71.1 image to text and 55.5
text to image; ViT: 77.7, 73.6 and 58.3.

Arguments (see `trajvit_jax.recipe.pretraining`): model (trajvit, or vit, patches of an image;
automerge), size (S, B, L, H), ablation (of trajvit's encoder), initial (what the run starts from),
image_records (folders with ':' between them), images (how many they hold), evaluation,
vocabulary, epochs or steps, image_batch, tokens (trajectories of an image), group (images that
share rows of slots), rows and image_slots (of a group), micro_batches, threads, workers, seed,
debug.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(arg, images=50_000_000, image_records="data/datacomp50m")
