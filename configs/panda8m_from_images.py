"""ViT3D-L on 8 million videos, from a ViT that was trained on images (paper §3.3, §4.2).

Models of space-time patches read no images, so they learn from them beforehand: an image's
patches become the central frames of tubelets, and every time step has the image's positions
(`trajvit_jax.convert.inflation`). With the image run's vocabulary, its text side goes on, too.

Commands, on a pod (launch/README.md): the images, then the videos.
  launch/run_pod.sh --workdir=/runs/images --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/datacomp50m.py:model=vit,image_records=/data/datacomp50m,\\
evaluation=/data/coco,vocabulary=/data/vocab.txt
  launch/run_pod.sh --workdir=/runs/videos --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/panda8m_from_images.py:initial=/runs/images,records=/data/panda8m,\\
evaluation=/data/msrvtt,vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of tiny models (a minute each on a CPU) on 16 records or more of each,
with a split test beside train:
  python -m trajvit_jax.main --workdir=runs/images \\
      --config=configs/datacomp50m.py:model=vit,debug,image_records=IMAGES
  python -m trajvit_jax.main --workdir=runs/from_images \\
      --config=configs/panda8m_from_images.py:debug,initial=runs/images,records=VIDEOS,frames=8

Planned for 32 H100, as the paper's (supplementary §6): 937,500 steps of 256 videos, 30 epochs. By
the cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 17.2 to
33.1 hours on 32, 68.9 to 125.9 on 8, after 12.2 to 22.7 on 32, 48.7 to 88.3 on 8, of the images'
run. To read as fast a host needs 6 to 12 cores on 32 GPUs, 7 to 12 on 8, of which one process keeps
six busy (see there), and for the images 7 to 12, of which it keeps two. Reading alone takes one
process a host 33.3 hours on 4 hosts and 133.3 on 1, eight a host 4.2 and 16.7 (extrapolated from
two cores); the images are datacomp50m.py's. `initial` may also be a folder that `python -m
trajvit_jax.convert` made of a Hugging Face ViT.

The paper's result (Table 11, ViT3D-L, text to video / video to text): ActivityNet 43.62 / 44.65,
VATEX 47.16 / 70.70, MSR-VTT 41.16 / 68.74, Charades 21.25 / 20.50; without images 37.82 / 34.54,
39.59 / 59.11, 33.71 / 56.51, 15.35 / 12.61.

Arguments (see `trajvit_jax.recipe.pretraining`): model (vit3d, token_learner, tome, rlt), initial,
size (that of the images' run), records, videos, evaluation, vocabulary, epochs or steps, batch,
frames, group and slots (of rlt's rows, see panda4m.py), micro_batches, threads, workers, seed,
debug.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(
        arg, videos=8_000_000, records="data/panda8m", model="vit3d", initial="runs/images"
    )
