"""TrajViT-L on 2 million videos of Panda-70M: the smallest run of the paper's scaling (§4.2).

Command, on one host of eight GPUs and on a pod (launch/README.md):
  launch/run_pod.sh --workdir=runs/panda2m --processes-per-host=8 \\
      --config=configs/panda2m.py:records=data/panda2m,evaluation=data/msrvtt,\\
vocabulary=data/vocab.txt
  launch/run_pod.sh --workdir=/runs/panda2m --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/panda2m.py:records=/data/panda2m,evaluation=/data/msrvtt,\\
vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of a tiny model on the records of `make demo` (a minute on a CPU):
  python -m trajvit_jax.main --workdir=runs/try \\
      --config=configs/panda2m.py:debug,records=runs/demo/records,frames=8

Planned for 32 H100, as the paper's (supplementary §6): 234,375 steps of 256 videos, 30 epochs. By
the cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 0.6 to
1.5 hours on 32, 2.2 to 4.5 on 8; with model=vit3d 4.3 to 8.3 on 32. To read as fast a host needs 32
to 90 cores on 32 GPUs, 45 to 90 on 8, of which one process keeps six busy (see there). Reading
alone takes one process a host 8.3 hours on 4 hosts and 33.3 on 1, eight a host 1 and 4.2
(extrapolated from two cores).

The paper's result (Table 10, TrajViT-L, text to video / video to text): ActivityNet 31.97 / 31.97,
VATEX 28.94 / 51.40, MSR-VTT 26.94 / 50.60, Charades 10.14 / 10.47. ViT3D-L: ActivityNet 26.33 /
27.33, VATEX 24.74 / 44.80, MSR-VTT 23.75 / 48.30, Charades 7.11 / 7.29.

Arguments (see `trajvit_jax.recipe.pretraining`): model (as in panda4m.py), size (S, B, L, H),
ablation (of trajvit's encoder), initial (what the run starts from), records (folders with ':'
between them), videos (how many they hold), evaluation, vocabulary, epochs or steps, batch, frames,
tokens (trajectories of a video), group (videos that share rows of slots), rows and slots (of a
group), micro_batches, threads, workers, seed, debug. What they mean for other models than trajvit,
and fuse of token_learner: panda4m.py.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(arg, videos=2_000_000, records="data/panda2m")
