r"""Prints a model's parameters, part by part, and what one video costs.

Example:
  python -m trajvit_jax.models.summary
  python -m trajvit_jax.models.summary --config=configs/models.py
  python -m trajvit_jax.models.summary --config=configs/models.py:size=B,ablation=hiera
  python -m trajvit_jax.models.summary --config=configs/demo.py:model=vit3d
  python -m trajvit_jax.models.summary --config=configs/models.py:trajectories=150 --models=all
  python -m trajvit_jax.models.summary --config=configs/models.py --models=trajvit,tome --frames=16

Without --config it takes configs/models.py:trajectories=150 and --models=all, where that file is:
the table of the paper's Figure 6a. Other flags change it as they always do.

Behind the name of configs/models.py stand its arguments, joined by commas:
  model         trajvit, vit3d, vit (of images), vivit, token_learner, tome, rlt, automerge,
                segmentation_only or tracking_only
  size          S, B, L or H
  ablation      none, resnet50, hiera, last_stage, no_position, mean, queries2, queries4, width64,
                width512 (the paper's Table 6), or released: as the released program departs
  trajectories  slots for them
  frames, dtype (float32, bfloat16), impl (fast, reference)
Any setting can be changed, too: --config.model.encoder.depth=6. All are in models/settings.py.

With --models, one table of several models instead: parameters of the video side, tokens, and
FLOPs by frames (the paper's Figure 6a). Tokens are slots, CLS included: all that there may be of
TrajViT's and RLT's, whose number depends on the video. configs/models.py has 255 of TrajViT's, as
training has; the table without --config, and docs/FRAMES.md, have 150. Two numbers are before and
after merging. segmentation_only and tracking_only are TrajViT's network on other records, whose
affair it is how many tokens there are. Here a frame shows 40% of a clip's trajectories, as in
Panda-70M's clips (docs/COMPARISON.md): the former has a token for each, of every frame. The latter
has one for each square of 16 pixels of a frame; squares that come into view later are not counted.

Nothing is allocated: shapes are enough; all models take one to three minutes. FLOPs are those of
products of matrices and convolutions by formula (Hiera has none here), and those that XLA counts in
the forward pass before it optimizes; a multiplication and an addition are two. Beside the paper's
Table 8: its 11.6 M of the backbone fits features of 512, ours have the encoder's 1,024.
"""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Iterator, Sequence

import ml_collections
from absl import app, flags
from ml_collections import config_flags

from tokenization import exit_codes
from trajvit_jax.command_flags import reader
from trajvit_jax.config import to_settings
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    NAMES,
    ModelSettings,
    ViT3DSettings,
    check_choice,
    settings_of_fed,
)

# What Table 8 of the paper counts for TrajViT-L, in millions. Two of its numbers take an
# explanation: 11.6 fits a ResNet-18 whose stages are projected to 512, not 1024, and 0.13 is two
# linear maps from 64 features, where one is the boxes'.
TABLE_8 = {
    "backbone and projection": 11.6,
    "resamplers": 8.4,
    "position features": 0.13,
    "transformer": 304.0,
}
_PARTS = (
    ("tokenizer.appearance.backbone.", "backbone and projection"),
    ("tokenizer.appearance.project.", "backbone and projection"),
    ("tokenizer.appearance.norm.", "backbone and projection"),
    ("tokenizer.appearance.widen.", "backbone and projection"),
    ("tokenizer.appearance.summary.", "resamplers"),
    ("tokenizer.position.summary.", "resamplers"),
    ("tokenizer.position.", "position features"),
    ("tokenizer.learners.", "TokenLearner"),
    ("tokenizer.fusers.", "TokenFuser"),
    ("tokenizer.", "patches"),
    ("encoder.", "transformer"),
    ("project_video.", "video projection"),
    ("text.", "text encoder"),
    ("", "text projection, temperature"),
)

# Of a clip's trajectories, how many a frame shows: 24.6 of 61 in Panda-70M's (docs/COMPARISON.md).
_SHOWN = 0.4
_SQUARE = 16  # pixels a side, of what tracking only follows

# Of the columns of numbers: a row is printed before the next is known.
_WIDTHS = (12, 6, 16, 8, 8)

# What it prints where no config is named: the table of the paper's Figure 6a.
_OTHERWISE = ("--config=configs/models.py:trajectories=150", "--models=all")


@dataclasses.dataclass(frozen=True)
class Part:
    """One part of a model.

    Attributes:
      name: what it is, in the words of Table 8 where that has it.
      parameters: how many numbers are trained.
    """

    name: str
    parameters: int


def parts(settings: ModelSettings) -> list[Part]:
    """The parts of a model, from shapes alone.

    Raises:
      ValueError: settings of no model.
    """
    # Imported late: flax takes seconds, and `--help` should not.
    from flax import nnx

    from trajvit_jax.models.video_text import VideoTextModel

    model = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))
    totals: dict[str, int] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        name = ".".join(str(key) for key in path)
        part = next(part for prefix, part in _PARTS if name.startswith(prefix))
        totals[part] = totals.get(part, 0) + leaf.get_value().size
    order = dict.fromkeys(part for _, part in _PARTS)
    return [Part(part, totals[part]) for part in order if part in totals]


def table(settings: ModelSettings) -> str:
    """The parts, their sum and the FLOPs of one video, as text."""
    from trajvit_jax.models.costs import cost_of
    from trajvit_jax.models.flops import count_forward

    found = parts(settings)
    # The paper's column is the paper's model.
    paper = TABLE_8 if settings == ModelSettings(dtype=settings.dtype, impl=settings.impl) else {}
    rows = [("part", "parameters", "Table 8" if paper else "")]
    for part in found:
        said = f"{paper[part.name]:g} M" if part.name in paper else ""
        rows.append((part.name, f"{part.parameters:,}", said))
    rows.append(("video side", f"{_video_side(found):,}", "~324 M" if paper else ""))
    rows.append(("all", f"{sum(part.parameters for part in found):,}", ""))
    cost = count_forward(settings)
    lines = [f"{name:28} {count:>14} {said:>9}".rstrip() for name, count, said in rows]
    lines.append(f"a video of {settings.frames} frames, {_slots(settings)} tokens with CLS:")
    if (formula := cost_of(settings).total) is not None:
        lines.append(f"{formula / 1e9:,.1f} GFLOPs by formula")
    lines.append(
        f"{cost.total / 1e9:,.1f} GFLOPs by XLA's count, "
        f"{cost.transformer / 1e9:,.1f} of them in the transformer"
    )
    return "\n".join(lines)


def with_frames(settings: ModelSettings, name: str, frames: int) -> ModelSettings:
    """The settings of another model of the same sizes.

    What a config sets for its own number of frames, rows of run-length tokens, does not count.
    `settings.trajvit.max_trajectories` are TrajViT's; those of `FED_TRAJVIT` follow from them.

    Args:
      settings: the sizes.
      name: of the model.
      frames: of a clip.

    Raises:
      ValueError: an unknown name, or a number of frames that the model does not read.
    """
    check_choice("--models", name, (*NAMES, *FED_TRAJVIT))
    network, patches = FED_TRAJVIT.get(name, name), settings.vit3d
    if name == "vit":
        patches = dataclasses.replace(patches, tubelet=1)
    elif settings.name == "vit":
        patches = dataclasses.replace(patches, tubelet=ViT3DSettings().tubelet)
    whole = network in ("trajvit", "automerge") or frames % patches.tubelet == 0
    if not whole or (name == "vit" and frames > 1):
        raise ValueError(f"{name} does not read {frames} frames; change --frames")
    own = settings.trajvit
    tokens = {
        "segmentation_only": round(_SHOWN * own.max_trajectories) * frames,
        "tracking_only": (settings.image_size // _SQUARE) ** 2,
    }.get(name, own.max_trajectories)
    own = dataclasses.replace(own, max_trajectories=tokens, **settings_of_fed(name))
    rlt = dataclasses.replace(settings.rlt, group=1, slots=0)
    return dataclasses.replace(
        settings, name=network, frames=frames, vit3d=patches, trajvit=own, rlt=rlt
    )


def comparison(
    settings: ModelSettings, names: Sequence[str], frames: Sequence[int]
) -> Iterator[str]:
    """What one video costs each model, by frames: the lines of a table, each as it is found.

    Args:
      settings: the sizes that all models have.
      names: of the models.
      frames: of the rows; a model of images has a row of one.

    Raises:
      ValueError: an unknown name, or frames that a model does not read, before the first line;
        settings of no model.
    """
    chosen = [
        (name, with_frames(settings, name, count))
        for name in names
        for count in ((1,) if name == "vit" else frames)
    ]
    width = max(len(name) for name, _ in chosen)
    yield _row(width, ("model", "M parameters", "frames", "tokens", "GFLOPs", "by XLA"))
    for name, own in chosen:
        yield _row(width, (name, *_costs(own)))


def _costs(settings: ModelSettings) -> tuple[str, str, str, str, str]:
    """The numbers of a row."""
    from trajvit_jax.models.costs import cost_of
    from trajvit_jax.models.flops import count_forward

    cost = cost_of(settings).total
    return (
        f"{_video_side(parts(settings)) / 1e6:.1f}",
        str(settings.frames),
        _slots(settings),
        "-" if cost is None else _giga(float(cost)),
        _giga(count_forward(settings).total),
    )


def _row(width: int, cells: Sequence[str]) -> str:
    name, *numbers = cells
    return "  ".join([name.ljust(width), *map(str.rjust, numbers, _WIDTHS)])


def _video_side(found: Sequence[Part]) -> int:
    return sum(part.parameters for part in found if not part.name.startswith("text"))


def _slots(settings: ModelSettings) -> str:
    """How many tokens there may be, before and after merging where these differ."""
    from trajvit_jax.models.costs import tokens_of

    tokens = tokens_of(settings)
    if tokens.last == tokens.first:
        return f"{tokens.first:,}"
    return f"{tokens.first:,} -> {tokens.last:,}"


def _giga(flops: float) -> str:
    """In billions, to three digits or whole."""
    giga = flops / 1e9
    return f"{giga:,.0f}" if giga >= 100 else f"{giga:.3g}"


def report(
    config: ml_collections.ConfigDict, models: Sequence[str], frames: Sequence[str]
) -> Iterator[str]:
    """What the command prints, each line as it is found.

    Args:
      config: with a model.
      models: names of the table's models, or 'all'; none = the config's model, part by part.
      frames: of the table's rows.

    Raises:
      ValueError: a config without a model, or arguments of no table.
    """
    if "model" not in config:
        raise ValueError("this config has no model; take configs/models.py or configs/demo.py")
    settings = to_settings(ModelSettings, config.model, "config.model")
    if not models:
        yield f"{settings.name}, {settings.dtype}\n{table(settings)}"
        return
    if not all(one.isdecimal() and int(one) for one in frames):
        raise ValueError(f"--frames={','.join(frames)}: give whole numbers from 1, as 16,32")
    names = (*NAMES, *FED_TRAJVIT) if models == ["all"] else models
    yield from comparison(settings, names, [int(one) for one in frames])


def run() -> None:
    """Entry point of `python -m trajvit_jax.models.summary`."""
    # Here, not above: programs with flags of these names import this file.
    config = config_flags.DEFINE_config_file(
        "config", None, "Config file, as file.py or file.py:arg."
    )
    models = flags.DEFINE_list("models", [], "Table of these models instead; all = of all.")
    frames = flags.DEFINE_list("frames", ["16", "32", "64", "128"], "Of the table's rows.")

    def main(argv: list[str]) -> None:
        if len(argv) > 1:
            raise app.UsageError(
                f"unknown argument {argv[1]!r}; settings are --config.NAME=VALUE",
                exit_codes.ASKED_WRONG,
            )
        try:
            for line in report(config.value, models.value, frames.value):
                print(line, flush=True)
        except ValueError as error:
            sys.exit(exit_codes.tell(error))

    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flag_as_required("config")
    # JAX tells of every kind of device that it does not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
    app.run(main, flags_parser=reader(config, __doc__, otherwise=_OTHERWISE))


if __name__ == "__main__":
    run()
