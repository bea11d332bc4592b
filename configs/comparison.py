"""Every model of the paper's tables, small, under one recipe: 8 frames of 112 pixels, width 192.

Command (records, all models, three seeds, docs/COMPARISON.md; what is finished is skipped):
  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.comparison --output=runs/comparison

One model alone, on the records that it made:
  python -m trajvit_jax.main --workdir=runs/mine --config=configs/comparison.py:model=tome

Cost: 4 to 13 minutes of one core's own time a model and seed, records apart. Expected: the table of
docs/COMPARISON.md, where chance is a mean R@5 of 2.1.

Data, steps, optimizer, text side and encoder are the same for all models. What differs is how a
video becomes tokens. The encoder has 3 layers; TokenLearner learns 8 tokens a time step after two
of them, ViViT reads space in two, ToMe merges 65 tokens a layer: the original's number, which
leaves 33 of 196 here (17%) and 37 of 1,568 there (2.4%). AutoMerge has 128 tokens of 392 patches,
which is the original's share, 1,024 of 3,136. The paper sets this number by TrajViT's FLOPs, the
making of trajectories among them, which is not counted here; without it, one token is all that they
buy: to make two of all patches costs more. `tokens=16` is as many as TrajViT has on average.
`width=2` makes TrajViT's ResNet twice as wide: about the FLOPs of the models that read patches.

Learning rate and `beta2` are those of configs/demo.py and `init_std` is near its own: there TrajViT
was developed, and none was tuned anew for any model.

Arguments: model (trajvit, vit3d, vivit, token_learner, tome, rlt, automerge, segmentation_only,
tracking_only), ablation (of trajvit's encoder, Table 6), variant (of the records; by default the
model's own), tokens (of automerge), width (of the ResNet), records (their folder), exercises,
panda, world (shares of a batch; 0 leaves a source out), batch, steps, seed.
"""

from __future__ import annotations

import ml_collections

from trajvit_jax.config import check_known, parse_arg
from trajvit_jax.models.settings import FED_TRAJVIT, NAMES, settings_of_fed
from trajvit_jax.recipe import ENCODER_ABLATIONS, check_ablation, queries_of

SOURCES = ("exercises", "panda", "world")
MODELS = (*(name for name in NAMES if name != "vit"), *FED_TRAJVIT)
# Rows of slots that 8 videos share, by the variant of their records: 0.2% of tokens or fewer find
# no room. What exceeds 255 trajectories, some clips of segmentation only, is dropped before.
PACKING = {
    "segmentation_only": {"group": 8, "rows": 2, "slots": 464},
    "tracking_only": {"group": 8, "rows": 2, "slots": 304},
}
OTHERS = {"group": 8, "rows": 1, "slots": 224}
# Three stages, of which attention units divide a grid of 28 cells; 270k parameters, where the
# ResNet has 78k.
HIERA = {
    "image_size": 112,
    "width": 32,
    "depths": (1, 1, 1),
    "heads": (1, 2, 4),
    "unit_attention": (True, True, False),
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The experiment; raises ValueError for what it cannot be."""
    chosen = parse_arg(
        arg,
        model="trajvit",
        ablation="none",
        variant="",
        tokens=128,
        width=1,
        records="runs/comparison/records",
        exercises=0.4375,
        panda=0.0625,
        world=0.5,
        batch=16,
        steps=640,
        seed=0,
    )
    check_known(chosen, model=MODELS, ablation=ENCODER_ABLATIONS)
    check_ablation(chosen.model, chosen.ablation)
    name = FED_TRAJVIT.get(chosen.model, chosen.model)
    sources = [source for source in SOURCES if chosen[source] > 0]
    if not sources:
        raise ValueError(f"at least one of {', '.join(SOURCES)} needs a share above 0")
    variant = chosen.variant or (chosen.model if chosen.model in FED_TRAJVIT else "trajectories")
    folder = f"{chosen.records}/{variant}"
    packing = PACKING.get(variant, OTHERS) if name == "trajvit" else None
    if packing:
        packing = packing | {"slots": packing["slots"] * queries_of(chosen.ablation)}

    config = ml_collections.ConfigDict()
    config.seed = chosen.seed
    config.steps = chosen.steps
    config.log_every = 10
    config.log_samples = False
    config.protocols = ()
    config.wandb = ""
    config.profile = {"start": 0, "steps": 3}
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    config.checkpoint_every = 100
    config.evaluate_every = 160
    config.keep = 1
    config.model = {
        "name": name,
        "image_size": 112,
        "frames": 8,
        "projection": 192,
        "encoder": {
            "width": 192,
            "depth": 3,
            "heads": 3,
            "mlp": 384,
            "init_std": 0.07,
            "unroll": 3,
        },
        "trajvit": {
            "max_trajectories": 255,
            "resnet": {
                "stem": 8 * chosen.width,
                "widths": tuple(chosen.width * own for own in (8, 16, 32, 64)),
                "depths": (1, 1, 1, 1),
            },
            "hiera": HIERA,
            **settings_of_fed(chosen.model),
            **ENCODER_ABLATIONS[chosen.ablation],
        },
        "tome": {"merged": 65},
        "token_learner": {"tokens": 8},
        "automerge": {"tokens": chosen.tokens},
        "vivit": {"temporal_depth": 1},
        # 0.2% of the tokens of training have no slot; evaluation reads all of them.
        "rlt": {"group": 2, "slots": 332},
        "text": {
            "vocabulary": 2000,
            "length": 40,
            "positions": 40,
            "width": 192,
            "depth": 2,
            "heads": 3,
            "mlp": 384,
            "init_std": 0.07,
            "unroll": 2,
        },
    }
    config.data = {
        "streams": (
            {
                "name": "video",
                "frames": 8,
                "batch": chosen.batch,
                "packing": packing,
                "sources": tuple(
                    {"path": f"{folder}/{source}", "weight": chosen[source]} for source in sources
                ),
            },
        ),
        "evaluation": f"{folder}/{sources[-1]}",
        "eval_batch": 32,
        "threads": 1,
        "cache": 4000,
    }
    config.optimizer = {
        "learning_rate": 1e-3,
        "beta2": 0.98,
        "weight_decay": 0.02,
        "warmup_fraction": 0.1,
    }
    config.step = {"augment": None}
    return config.lock()
