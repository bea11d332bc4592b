"""TrajViT-L on 8 million videos of Panda-70M: the largest run on videos alone (§4.2).

Command, on one host of eight GPUs and on a pod (launch/README.md):
  launch/run_pod.sh --workdir=runs/panda8m --processes-per-host=8 \\
      --config=configs/panda8m.py:records=data/panda8m,evaluation=data/msrvtt,\\
vocabulary=data/vocab.txt
  launch/run_pod.sh --workdir=/runs/panda8m --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/panda8m.py:records=/data/panda8m,evaluation=/data/msrvtt,\\
vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of a tiny model on the records of `make demo` (a minute on a CPU):
  python -m trajvit_jax.main --workdir=runs/try \\
      --config=configs/panda8m.py:debug,records=runs/demo/records,frames=8

Planned for 32 H100, as the paper's (supplementary §6): 937,500 steps of 256 videos, 30 epochs. By
the cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 2.2 to
6.1 hours on 32, 8.8 to 17.8 on 8; with model=vit3d 17.2 to 33.1 on 32. To read as fast a host needs
32 to 90 cores on 32 GPUs, 45 to 90 on 8, of which one process keeps six busy (see there). Reading
alone takes one process a host 33.3 hours on 4 hosts and 133.3 on 1, eight a host 4.2 and 16.7
(extrapolated from two cores).

The paper's result (Table 10, TrajViT-L, text to video / video to text): ActivityNet 42.35 / 41.92,
VATEX 41.35 / 65.35, MSR-VTT 35.22 / 62.73, Charades 19.41 / 18.36. ViT3D-L: ActivityNet 38.82 /
37.46, VATEX 40.59 / 64.46, MSR-VTT 34.71 / 60.83, Charades 17.45 / 16.00. Table 11 gives slightly
lower numbers for the same runs.

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
    return pretraining(arg, videos=8_000_000, records="data/panda8m")
