"""The paper's training recipe (supplementary §6, Table 7), which the configs of its runs share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from fractions import Fraction
from typing import Any

import ml_collections

from trajvit_jax.config import check_known, named_in, parse_arg
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    NAMES,
    RESNETS,
    SIZES,
    EncoderSettings,
    ModelSettings,
    RLTSettings,
    settings_of_fed,
)

VIDEO_BATCH, IMAGE_BATCH = 256, 4096
FRAMES, EPOCHS = 16, 30
GROUP = 8

# Models with settings of their own, beside those of their patches.
BASELINES = ("vivit", "token_learner", "tome", "rlt", "automerge")

# Arguments that no other model reads; models of `FED_TRAJVIT` read those of trajvit.
_OWN_ARGUMENTS = {
    "fuse": ("token_learner",),
    "tokens": ("trajvit", "automerge"),
    "group": ("trajvit", "rlt"),
    "rows": ("trajvit",),
    "slots": ("trajvit", "rlt"),
    "image_slots": ("trajvit",),
}

# What reads images as TrajViT does, frame by frame, and so both in one run.
_BY_FRAME = ("trajvit", "automerge", *FED_TRAJVIT)

# The encoder's variations of Tables 6 and 8, as settings of `trajvit_jax.models.settings.
# TrajViTSettings`; 'none' is the paper's model.
ENCODER_ABLATIONS: dict[str, dict[str, Any]] = {
    "none": {},
    "resnet50": {"resnet": dataclasses.asdict(RESNETS["50"])},
    "hiera": {"backbone": "hiera"},
    "last_stage": {"hierarchical": False},
    "no_position": {"position": "none"},
    "mean": {"appearance": "mean"},
    "queries2": {"resampler": {"queries": 2}},
    "queries4": {"resampler": {"queries": 4}},
    "width64": {"feature_width": 64},
    "width512": {"feature_width": 512},
}

# Slots of a row for each video of its group: 112 for a hundred trajectories a video (see
# docs/SCALING.md), 82 for the 76 segments that the built-in segmenter makes of an image. A run
# tells where its records want other rows (`trajvit_jax.data.row_fit`). And for the segments of all
# frames, each video in a row of its own, as long as one may be.
_SLOTS_A_VIDEO = {"video": 112, "image": 82}
_SLOTS_IN_DEBUG = 15
_SLOTS_OF_SEGMENTS = 1024
# Steps at most until the order of videos and images repeats; more only where one of them has a
# single step in a round.
_ROUND = 200
_STEPS_BETWEEN = 1000  # steps at least between checkpoints, of which an epoch has two or fewer

_DEBUG_MODEL = {
    "image_size": 32,
    "projection": 16,
    "trajvit": {"resnet": {"stem": 8, "widths": (8, 16), "depths": (1, 1)}},
    "automerge": {"tokens": 16},
    "text": {
        "vocabulary": 200,
        "length": 16,
        "positions": 16,
        "width": 32,
        "depth": 1,
        "heads": 2,
        "mlp": 64,
    },
}
_DEBUG_ENCODER = EncoderSettings(width=32, depth=2, heads=2, mlp=64)
# Defaults of the arguments of a debug run. Batches are of eight groups: up to eight devices share
# them, more want a larger one.
_DEBUG = {
    "steps": 2,
    "batch": 16,
    "image_batch": 16,
    "tokens": 15,
    "group": 2,
    "threads": 2,
}


def pretraining(
    arg: str | None,
    *,
    videos: int = 0,
    records: str = "",
    images: int = 0,
    image_records: str = "",
    model: str = "trajvit",
    size: str = "L",
    initial: str = "",
) -> ml_collections.ConfigDict:
    """The config of a run on so many captioned videos, images, or both.

    Arguments behind the config's name:
      model: a tokenization: 'trajvit', 'vit3d', 'vit' (of images), 'vivit', 'token_learner',
        'tome', 'rlt', 'automerge'; or TrajViT fed with other records, see `FED_TRAJVIT`:
        'segmentation_only', 'tracking_only'.
      size: S, B, L or H of the encoder.
      ablation: of trajvit's encoder, see `ENCODER_ABLATIONS`.
      fuse: of token_learner: TokenFuser, whose dense tokens detection reads (supplementary, §9).
      initial: what a new run starts from: another run's workdir, or converted weights. Of a ViT
        trained on images it may be, too, for models of tubelets (paper, §3.3 and Table 11).
      records: folder of the videos' records, or several with ':' between them.
      image_records: likewise of the images'.
      evaluation: folder whose split `test` is evaluated; the first of the others by default.
      vocabulary: vocab.txt of BERT; learned from the captions by default.
      videos, images: how many records there are, where it is not the number of the name.
      epochs: over all records; `steps` instead sets the number of updates.
      batch, image_batch: videos and images of a step.
      frames: of a video's records.
      tokens: trajectories that a video has at most; it drops its smallest. Of automerge: the
        tokens that it makes, 1,024 by default.
      group: videos that share rows of slots; a device owns whole groups. Groups of fewer than 8
        let more devices share a batch, and drop more trajectories (`benchmarks.packing --group`).
      rows, slots: of a group of videos (without videos: images); 0 = one row of the tested length.
        Of rlt, whose groups have one row: by default a group is one video, and its row has slots
        for all its patches, so that it costs what vit3d does. `group=8,slots=N` makes it cheaper:
        eight share N slots, and patches that changed least find none (a run logs `dropped`).
      image_slots: likewise of a group of images, with videos and without.
      micro_batches: parts of a step, for less memory.
      threads, workers: of each process, to read; 0 threads = one for each core of its share
        of the host.
      seed: of the run.
      debug: a tiny model, whatever the size, two steps, 16 videos or images a step in groups of 2,
        quickly compiled: a minute on a CPU. Videos, images and epochs do not count; the other
        arguments do.

    Args:
      arg: the arguments, `key=value,key=value`.
      videos: how many; 0 = the run has none.
      records: default of the argument.
      images: how many; 0 = the run has none.
      image_records: default of the argument.
      model: default of the argument, as are the next two.
      size: of the encoder.
      initial: what it starts from.

    Raises:
      ValueError: an unknown argument, model or size, or what they cannot do together.
    """
    defaults: dict[str, Any] = {
        "model": model,
        "size": size,
        "ablation": "none",
        "fuse": False,
        "initial": initial,
        "records": records,
        "image_records": image_records,
        "evaluation": "",
        "vocabulary": "",
        "videos": videos,
        "images": images,
        "epochs": EPOCHS,
        "steps": 0,
        "batch": VIDEO_BATCH,
        "image_batch": IMAGE_BATCH,
        "frames": FRAMES,
        "tokens": 1023,
        "group": GROUP,
        "rows": 0,
        "slots": 0,
        "image_slots": 0,
        "micro_batches": 1,
        "threads": 0,
        "workers": 0,
        "seed": 0,
        "debug": False,
    }
    given = named_in(arg)
    chosen = parse_arg(arg, **defaults)
    if chosen.debug:
        chosen = parse_arg(arg, **defaults | _DEBUG)
    if chosen.model == "rlt" and "group" not in given:
        chosen.group = RLTSettings().group
    _check(chosen, given)
    streams, an_epoch = _streams(chosen)

    config = ml_collections.ConfigDict()
    config.seed = chosen.seed
    config.initial = chosen.initial
    config.update(_schedule(chosen, chosen.steps or round(chosen.epochs * an_epoch)))
    config.protocols = ()
    config.keep = 2
    config.keep_best = ""
    config.log_samples = False
    config.wandb = ""
    config.optimize = not chosen.debug
    config.profile = {"start": 0, "steps": 3}
    config.max_skipped = 10
    config.model = _model(chosen, given)
    config.data = {
        "streams": streams,
        "evaluation": chosen.evaluation,
        "vocabulary": chosen.vocabulary,
        "eval_batch": 4 if chosen.debug else 64,
        "threads": chosen.threads,
        "workers": chosen.workers,
        "max_bad": 0.01,
    }
    config.optimizer = {
        "learning_rate": 1e-4,
        "weight_decay": 0.02,
        "beta1": 0.9,
        "beta2": 0.999,
        "clip_norm": 1.0,
        "warmup_fraction": 1 / chosen.epochs,
        "final_fraction": 0.01,
    }
    config.step = {
        "micro_batches": chosen.micro_batches,
        "norm_scope": "batch",
        "loss_block": 1024,
        "average_decay": 0.0,
        "augment": {
            "crop_scale": (0.2, 1.0),
            "crop_ratio": (3 / 4, 4 / 3),
            "flip": 0.5,
            "jitter": 0.8,
            "grayscale": 0.2,
            "blur": 0.5,
        },
    }
    config.mesh = {"data": -1, "fsdp": 1, "tensor": 1}
    return config.lock()


def _schedule(chosen: ml_collections.ConfigDict, steps: int) -> dict[str, int]:
    """When a run of so many steps logs, saves and evaluates."""
    # A state of TrajViT-L is 5.2 GB: minutes lie between two on the hardware of the docstrings.
    saved = max(_STEPS_BETWEEN, round(steps / chosen.epochs / 2))
    # Once an epoch, at a step that is saved anyway; short runs only at their end.
    evaluated = saved * max(1, round(steps / chosen.epochs / saved))
    return {
        "steps": steps,
        "log_every": 1 if chosen.debug else 50,
        "checkpoint_every": min(saved, steps),
        "evaluate_every": evaluated if steps > 30_000 else 0,
    }


def _check(chosen: ml_collections.ConfigDict, given: Collection[str]) -> None:
    check_known(chosen, model=(*NAMES, *FED_TRAJVIT), size=SIZES, ablation=ENCODER_ABLATIONS)
    check_ablation(chosen.model, chosen.ablation)
    kind = FED_TRAJVIT.get(chosen.model, chosen.model)
    for argument, models in _OWN_ARGUMENTS.items():
        if argument in given and kind not in models:
            raise ValueError(f"{argument} is of {' and '.join(models)}, not of {chosen.model}")
    if chosen.videos and chosen.model == "vit":
        raise ValueError("vit reads images: train it with configs/datacomp50m.py:model=vit")
    if chosen.videos and chosen.images and chosen.model not in _BY_FRAME:
        raise ValueError(
            f"{chosen.model} does not train on images and videos together (paper, section 4.2): "
            "train a vit on the images first, with configs/datacomp50m.py:model=vit, and start "
            "from it, with configs/panda8m_from_images.py"
        )
    if chosen.epochs < 1 or min(chosen.videos, chosen.images) < 0:
        raise ValueError("epochs must be at least 1, videos and images at least 0")
    for count, name in (("videos", "records"), ("images", "image_records")):
        if bool(chosen[count]) != bool(chosen[name]):
            raise ValueError(
                f"{count}={chosen[count]} and {name}={chosen[name]!r} belong together: how many "
                "records there are, and their folder"
            )
    if not chosen.videos and not chosen.images:
        raise ValueError("a run needs videos, images, or both")
    if chosen.image_slots and not chosen.images:
        raise ValueError(f"image_slots={chosen.image_slots}, but the run has no images: slots=")
    if chosen.image_slots and chosen.slots and not chosen.videos:
        raise ValueError("slots and image_slots are the same in a run on images alone: name one")
    if kind == "rlt" and chosen.group > 1 and not chosen.slots:
        raise ValueError(
            f"group={chosen.group} of rlt needs slots, of all its videos together: a row of all "
            "their patches costs more than one for each video"
        )
    if chosen.group < 1:
        raise ValueError(f"group must be at least 1, got {chosen.group}")
    for count, name in (("videos", "batch"), ("images", "image_batch")):
        shared = kind in _OWN_ARGUMENTS["group"]
        if chosen[count] and shared and chosen[name] % chosen.group:
            raise ValueError(
                f"{name}={chosen[name]} is not a multiple of group={chosen.group}: change either"
            )


def _streams(chosen: ml_collections.ConfigDict) -> tuple[tuple[dict[str, Any], ...], float]:
    """Steps of videos, of images, or both in turn; and how many of them are an epoch.

    In a joint run both go through all their records equally often.
    """
    kinds = [
        ("video", chosen.videos, chosen.batch, chosen.frames, chosen.records),
        ("image", chosen.images, chosen.image_batch, 1, chosen.image_records),
    ]
    kinds = [kind for kind in kinds if kind[1]]
    epochs = [Fraction(count, batch) for _, count, batch, *_ in kinds]
    weights = [1]
    if chosen.debug:
        weights = [1] * len(kinds)
    elif len(kinds) == 2:
        weights = _weights(*epochs)
    streams = tuple(
        {
            "name": name,
            "frames": frames,
            "batch": batch,
            "weight": weight,
            "sources": tuple({"path": path} for path in folders.split(":")),
            "packing": _packing(chosen, name),
        }
        for (name, _, batch, frames, folders), weight in zip(kinds, weights, strict=True)
    )
    return streams, float(sum(epochs))


def _weights(videos: Fraction, images: Fraction) -> list[int]:
    """Steps of videos and of images in a round, from those in an epoch of each."""
    ratio = max(videos, images) / min(videos, images)
    # The ratio of the many to the few: that of the few to the many would round to 0.
    ratio = ratio.limit_denominator(max(1, _ROUND // (1 + ratio)))
    weights = [ratio.numerator, ratio.denominator]
    return weights if videos > images else weights[::-1]


def _packing(chosen: ml_collections.ConfigDict, stream: str) -> dict[str, int] | None:
    if FED_TRAJVIT.get(chosen.model, chosen.model) != "trajvit":
        return None
    a_video = _SLOTS_IN_DEBUG if chosen.debug else _SLOTS_A_VIDEO[stream]
    slots = chosen.group * a_video * queries_of(chosen.ablation)
    packing = {"group": chosen.group, "rows": 1, "slots": slots}
    if chosen.model == "segmentation_only" and stream == "video" and not chosen.debug:
        packing |= {"rows": chosen.group, "slots": _SLOTS_OF_SEGMENTS}
    if stream == "video" or not chosen.videos:
        packing |= {name: chosen[name] for name in ("rows", "slots") if chosen[name]}
    if stream == "image" and chosen.image_slots:
        packing["slots"] = chosen.image_slots
    return packing


def queries_of(ablation: str) -> int:
    """Tokens, and so slots, of a trajectory in one of `ENCODER_ABLATIONS`."""
    return ENCODER_ABLATIONS[ablation].get("resampler", {}).get("queries", 1)


def check_ablation(model: str, ablation: str) -> None:
    """Raises ValueError for an ablation of the encoder of another model than trajvit."""
    if ablation != "none" and FED_TRAJVIT.get(model, model) != "trajvit":
        raise ValueError(f"ablation={ablation} is one of trajvit, not of {model}")


def _model(chosen: ml_collections.ConfigDict, given: Collection[str]) -> dict[str, Any]:
    name = FED_TRAJVIT.get(chosen.model, chosen.model)
    model = {"name": name, "frames": chosen.frames if chosen.videos else 1}
    # All of them, so that a command can change each: --config.model.tome.merged=32
    defaults = ModelSettings()
    if name not in _BY_FRAME:
        tubelets = defaults.vit3d
        if not chosen.videos:  # a ViT of images
            tubelets = dataclasses.replace(tubelets, tubelet=1)
        model["vit3d"] = dataclasses.asdict(tubelets)
    if name in BASELINES:
        model[name] = dataclasses.asdict(getattr(defaults, name))
    if chosen.fuse:
        model["token_learner"]["fuse"] = True
    if name == "rlt":
        model["rlt"] |= {"group": chosen.group, "slots": chosen.slots}
    tiny: dict[str, Any] = _DEBUG_MODEL if chosen.debug else {}
    ablation = ENCODER_ABLATIONS[chosen.ablation]
    values = {
        "dtype": "float32" if chosen.debug else "bfloat16",
        "deterministic": False,
        "encoder": dataclasses.asdict(_DEBUG_ENCODER if chosen.debug else SIZES[chosen.size]),
        "trajvit": {"max_trajectories": chosen.tokens}
        | tiny.get("trajvit", {})
        | settings_of_fed(chosen.model)
        | ablation,
    }
    model |= tiny | values
    if name == "automerge" and "tokens" in given:
        model["automerge"] = model["automerge"] | {"tokens": chosen.tokens}
    return model
