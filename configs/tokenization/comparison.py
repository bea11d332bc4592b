"""The data of configs/comparison.py: the procedural world, and how all clips become records.

Command (all that the comparison needs; benchmarks.ablations makes the other variants):
  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.comparison --output=runs/comparison

Cost: about 12 minutes of one core a variant (1,403 real clips and 960 of the world), `finer` 20.
Expected: records that one model of docs/COMPARISON.md reads.

`world` are fields of `tokenization.world.scenes.WorldSettings`, `extract` those of
`tokenization.extract.ExtractSettings`, for real clips too. Frames are those of every variant; what
differs is the labelling of their pixels:

  trajectories       the built-in segmenter and tracker (TrajViT; other models read pixels alone)
  segmentation_only  every segment of every frame by itself (Table 5)
  tracking_only      squares of 16 model pixels that are followed (Table 5)
  finer              segmented at twice the resolution (Table 6, 1024 -> 512 reversed)
  joined             followed from three frames, the pieces joined, as the tokenizer does by default
  coarser            segments merged twice as far: the built-in counterpart of a segmenter that
                     gives less detail (Table 6, DirectSAM -> SAM, which both need weights)
  keyframes, stride  clips start at cuts only, or at a fixed stride only (Table 6)

Arguments: variant, train and test (clips of the world), seed (of the world).
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import check_known, parse_arg
from trajvit_jax.small_recipe import small_extraction

VARIANTS = {
    "trajectories": {},
    "segmentation_only": {"tracker": "none", "split": "stride", "clip_limit": 1},
    # The models read 112 pixels, whatever is stored.
    "tracking_only": {
        "segmenter": "patches",
        "tracker": "patches",
        "max_side": 112,
        "walk": {"patch": 16},
    },
    "finer": {"max_side": 256},
    "joined": {"discover": True},
    "coarser": {"classical": {"superpixels": 200, "threshold": 10.0}},
    "keyframes": {"split": "keyframes"},
    "stride": {"split": "stride"},
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The world's clips, and one way to cut them; raises ValueError for an unknown one."""
    chosen = parse_arg(arg, variant="trajectories", train=768, test=192, seed=0)
    check_known(chosen, variant=VARIANTS)
    config = ml_collections.ConfigDict()
    config.train = chosen.train
    config.test = chosen.test
    config.seed = chosen.seed
    config.world = {"frames": 8, "max_objects": 2}
    config.extract = small_extraction(**{"max_side": 128} | VARIANTS[chosen.variant])
    return config.lock()
