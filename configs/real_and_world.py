"""TrajViT and ViT3D from scratch on real captioned clips and the procedural world together.

Command (extracts, trains both models, evaluates, and writes a report; docs/REAL_LEARNING.md):
  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.real_learning --output=runs/real

One model alone, on the records that it made:
  python -m trajvit_jax.main --workdir=runs/mine --config=configs/real_and_world.py:model=vit3d

Cost: 42 minutes of two busy cores for all of it, 22 of them a core's own time. Expected, of one
seed, captions find held-out videos (docs/REAL_LEARNING.md, with its intervals): R@5 on exercises
TrajViT 9.8, ViT3D 4.9 (chance 1.5), on the world 45.3 and 46.9 (3.9), on Panda 19.2, which is
chance.

Every batch has clips of every source, in the shares of their weights; a weight of 0 leaves a
source out. A source is a folder of records, of splits train and test, below `records`:
  exercises: rendered clips of one person exercising; captions by one template;
  panda: clips of Panda-70M;
  world: `tokenization.world`, which holds a quarter of all caption contents out for test.
Of the first two, too, a quarter is held out, by a hash that no size, order or seed changes: of
the YouTube video that a Panda clip was cut from, and of the exercise's name without version and
remarks in parentheses (`benchmarks.parts.captioned_clips`). No clip in test has such a twin in
train.

Arguments: model (trajvit or vit3d), records (their folder), exercises, panda, world (weights),
augment, batch, steps, seed. Augmentation in the step is none by default: in 600 steps a clip is
seen ten times, or, of Panda, 44 times. augment=paper is Table 7's; the world's captions name
colours and directions, which that takes away, and augment=mild leaves.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import check_known, parse_arg
from trajvit_jax.small_recipe import small_run

SOURCES = ("exercises", "panda", "world")
# Panda clips have five times the trajectories of the others: rows of 8 videos share slots.
PACKING = {"group": 8, "rows": 1, "slots": 224}
AUGMENTATIONS = {
    "paper": {},
    "mild": {
        "crop_scale": (0.5, 1.0),
        "flip": 0.0,
        "brightness": 0.3,
        "contrast": 0.3,
        "saturation": 0.2,
        "hue": 0.0,
        "grayscale": 0.0,
        "blur": 0.2,
    },
    "none": None,
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment, of the demo's size; raises ValueError for what it cannot be."""
    chosen = parse_arg(
        arg,
        model="trajvit",
        records="runs/real/records",
        exercises=0.5,
        panda=0.125,
        world=0.375,
        augment="none",
        batch=32,
        steps=600,
        seed=0,
    )
    sources = [name for name in SOURCES if chosen[name] > 0]
    if not sources:
        raise ValueError(f"at least one of {', '.join(SOURCES)} needs a weight above 0")
    check_known(chosen, augment=AUGMENTATIONS)
    config = small_run(
        model=chosen.model, steps=chosen.steps, seed=chosen.seed, words=2000, length=40
    )
    config.log_every = 5
    config.checkpoint_every = 100
    config.evaluate_every = chosen.steps // 4
    config.data = {
        "streams": (
            {
                "name": "video",
                "frames": 8,
                "batch": chosen.batch,
                "packing": PACKING if chosen.model == "trajvit" else None,
                "sources": tuple(
                    {"path": f"{chosen.records}/{name}", "weight": chosen[name]} for name in sources
                ),
            },
        ),
        "evaluation": f"{chosen.records}/{sources[0]}",
        "eval_batch": 32,
        "threads": 2,
        "cache": 4000,
    }
    config.step = {"augment": AUGMENTATIONS[chosen.augment]}
    return config.lock()
