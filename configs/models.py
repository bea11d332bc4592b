"""The paper's models and the ablations of their encoder (Tables 6 to 8), without a run.

Command (parameters part by part, and FLOPs of one video):
  python -m trajvit_jax.models.summary --config=configs/models.py
  python -m trajvit_jax.models.summary --config=configs/models.py:model=vit3d,size=B
  python -m trajvit_jax.models.summary --config=configs/models.py:size=B,ablation=hiera
  python -m trajvit_jax.models.summary --config=configs/models.py:trajectories=150 --models=all

Cost: seconds, one to three minutes for all models; nothing is trained or even allocated.
Expected: 323.2 M parameters for the video side of TrajViT-L (the paper's Table 8: about 324 M),
beside BERT-base's 109 M.

Arguments: model (trajvit, vit3d, vit, vivit, token_learner, tome, rlt, automerge,
segmentation_only or tracking_only), size (S, B, L, H), ablation (none, resnet50, hiera,
last_stage, no_position, mean, queries2, queries4, width64, width512, released), trajectories
(slots), frames, dtype, impl. vit reads one frame. Of the last two models the records differ, not
the network: see `trajvit_jax.models.settings.FED_TRAJVIT`.
"""

from __future__ import annotations

import dataclasses

import ml_collections

from trajvit_jax.config import check_known, parse_arg
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    NAMES,
    SIZES,
    ModelSettings,
    settings_of_fed,
)
from trajvit_jax.recipe import BASELINES, ENCODER_ABLATIONS, check_ablation

ABLATIONS = ENCODER_ABLATIONS | {
    # What the released program does otherwise than the paper says.
    "released": {
        "position": "centers",
        "position_features": "released",
        "resampler": {"depth": 2, "query_std": 1.0},
        "position_depth": 2,
        "queries_as": "sum",
        "attend_padding": True,
    },
}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """A model's settings under `model`.

    Raises:
      ValueError: an unknown model, size or ablation, or an ablation of another model.
    """
    chosen = parse_arg(
        arg,
        model="trajvit",
        size="L",
        ablation="none",
        trajectories=255,
        frames=16,
        dtype="float32",
        impl="fast",
    )
    check_known(chosen, model=(*NAMES, *FED_TRAJVIT), size=SIZES, ablation=ABLATIONS)
    check_ablation(chosen.model, chosen.ablation)
    if chosen.ablation == "released" and chosen.model != "trajvit":
        raise ValueError(f"ablation=released is the released program's trajvit, not {chosen.model}")
    name, defaults = FED_TRAJVIT.get(chosen.model, chosen.model), ModelSettings()
    patches = defaults.vit3d
    if name == "vit":
        chosen.frames, patches = 1, dataclasses.replace(patches, tubelet=1)
    encoder = dataclasses.asdict(SIZES[chosen.size])
    tokenizer = {"max_trajectories": chosen.trajectories} | settings_of_fed(chosen.model)
    tokenizer |= ABLATIONS[chosen.ablation]
    text = {}
    if chosen.ablation == "released":
        encoder |= {"final_norm": False, "passes": 2}
        text["layers_run"] = 9
        if chosen.size == "L":
            tokenizer["resampler"] = tokenizer["resampler"] | {"depth": 4}
    config = ml_collections.ConfigDict()
    config.model = {
        "name": name,
        "frames": chosen.frames,
        "dtype": chosen.dtype,
        "impl": chosen.impl,
        "encoder": encoder,
        "trajvit": tokenizer,
        "vit3d": dataclasses.asdict(patches),
        **{one: dataclasses.asdict(getattr(defaults, one)) for one in BASELINES},
        "text": text,
    }
    return config.lock()
