"""TrajViT-L on 4 million videos of Panda-70M: the paper's main comparison (§4.1).

Command, on one host of eight GPUs and on a pod (launch/README.md):
  launch/run_pod.sh --workdir=runs/panda4m --processes-per-host=8 \\
      --config=configs/panda4m.py:records=data/panda4m,evaluation=data/msrvtt,\\
vocabulary=data/vocab.txt
  launch/run_pod.sh --workdir=/runs/panda4m --hosts=gpu1,gpu2,gpu3,gpu4 --processes-per-host=8 \\
      --config=configs/panda4m.py:records=/data/panda4m,evaluation=/data/msrvtt,\\
vocabulary=/data/vocab.txt
Under SLURM: sbatch --ntasks-per-node=8 --cpus-per-task=12 launch/slurm.sbatch, with the same
--workdir and --config.
To try it first, two steps of a tiny model on the records of `make demo` (a minute or two on a CPU):
  python -m trajvit_jax.main --workdir=runs/try \\
      --config=configs/panda4m.py:debug,records=runs/demo/records,frames=8

Planned for 32 H100, as the paper's (supplementary §6): 468,750 steps of 256 videos, 30 epochs. By
the cost model of docs/SCALING.md (assumed: 25% to 45% of the peak, 400 GB/s between GPUs): 1.1 to
3.1 hours on 32, 4.4 to 8.9 on 8; with model=vit3d 8.6 to 16.6 on 32. To read as fast a host needs
32 to 90 cores on 32 GPUs, 45 to 90 on 8, of which one process keeps six busy (see there). Reading
alone takes one process a host 16.7 hours on 4 hosts and 66.7 on 1, eight a host 2.1 and 8.3
(extrapolated from two cores).

The paper's result (Table 10, TrajViT-L, text to video / video to text): ActivityNet 38.62 / 38.41,
VATEX 36.19 / 61.02, MSR-VTT 31.71 / 60.52, Charades 14.81 / 14.81. ViT3D-L: ActivityNet 35.34 /
34.54, VATEX 35.00 / 59.11, MSR-VTT 30.90 / 56.61, Charades 12.61 / 12.61.

Arguments (see `trajvit_jax.recipe.pretraining`): model (trajvit, vit3d, vivit, token_learner,
tome, rlt, automerge, segmentation_only, tracking_only; vit, which reads images alone, is one of
datacomp50m.py), fuse (token_learner with TokenFuser, as in the paper's row of AVA), size (S, B, L,
H), ablation (of trajvit's encoder), initial (what the run starts from), records (folders with ':'
between them), videos (how many they hold), evaluation, vocabulary, epochs or steps, batch, frames,
tokens (trajectories of a video; automerge's tokens), group (videos that share rows of slots), rows
and slots (of a group), micro_batches, threads, workers, seed, debug. Of fuse, tokens, group, rows
and slots, those that the model does not read are refused.

rlt, left alone, has a row of 1,569 slots for each clip and costs what vit3d does. With
group=8,slots=N eight clips share a row of N slots; patches that changed least find no place in it,
and a run logs how many (`dropped`).

segmentation_only and tracking_only are trajvit on records of their own, which python -m
tokenization.extract makes with configs/tokenization/paper.py:tracker=none,split=stride,limit=1 and
with :segmenter=patches,tracker=patches,resolution=224. segmentation_only may lose segments: 16
frames of up to 128 make up to 2,048, and a video keeps its 1,023 largest, in a row of 1,024 slots;
a run logs how many it dropped. tokens=2048,slots=2049 keeps them all, in rows twice as long.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.recipe import pretraining


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for an unknown argument."""
    return pretraining(arg, videos=4_000_000, records="data/panda4m")
