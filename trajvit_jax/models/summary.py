r"""Prints a model's parameters, part by part, and what one video costs.

Example:
  python -m trajvit_jax.models.summary --config=configs/models.py
  python -m trajvit_jax.models.summary --config=configs/models.py:size=B,ablation=hiera
  python -m trajvit_jax.models.summary --config=configs/demo.py:model=vit3d

Behind the name of configs/models.py stand its arguments, joined by commas:
  model         trajvit or vit3d
  size          S, B, L or H
  ablation      none, resnet50, hiera, last_stage, no_position, mean, queries2, queries4, width64,
                width512 (the paper's Table 6), or released: as the released program departs
  trajectories  slots for them
  frames, dtype (float32, bfloat16), impl (fast, reference)
Any setting can be changed, too: --config.model.encoder.depth=6. All are in models/settings.py.

Nothing is allocated: shapes are enough. FLOPs are those that XLA counts in the forward pass
before it optimizes, a multiplication and an addition counted as two.
"""

from __future__ import annotations

import dataclasses
import logging
import sys

from absl import app, flags
from ml_collections import config_flags

from trajvit_jax.command_flags import reader
from trajvit_jax.config import to_settings
from trajvit_jax.models.settings import ModelSettings

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, as file.py or file.py:arg.")

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
    ("tokenizer.", "patches"),
    ("encoder.", "transformer"),
    ("project_video.", "video projection"),
    ("text.", "text encoder"),
    ("", "text projection, temperature"),
)


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
    from trajvit_jax.models.flops import count_forward

    found = parts(settings)
    # The paper's column is the paper's model.
    paper = TABLE_8 if settings == ModelSettings(dtype=settings.dtype, impl=settings.impl) else {}
    rows = [("part", "parameters", "Table 8" if paper else "")]
    for part in found:
        said = f"{paper[part.name]:g} M" if part.name in paper else ""
        rows.append((part.name, f"{part.parameters:,}", said))
    video = sum(part.parameters for part in found if not part.name.startswith("text"))
    rows.append(("video side", f"{video:,}", "~324 M" if paper else ""))
    rows.append(("all", f"{sum(part.parameters for part in found):,}", ""))
    cost = count_forward(settings)
    lines = [f"{name:28} {count:>14} {said:>9}".rstrip() for name, count, said in rows]
    lines.append(
        f"{cost.total / 1e9:,.1f} GFLOPs a video of {settings.frames} frames, "
        f"{cost.transformer / 1e9:,.1f} of them in the transformer over all slots"
    )
    return "\n".join(lines)


def main(argv: list[str]) -> None:
    """Reads the flags and prints."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown argument {argv[1]!r}; settings are --config.NAME=VALUE")
    try:
        if "model" not in _CONFIG.value:
            raise ValueError("this config has no model; take configs/models.py or configs/demo.py")
        settings = to_settings(ModelSettings, _CONFIG.value.model, "config.model")
        print(f"{settings.name}, {settings.dtype}")
        print(table(settings))
    except ValueError as error:
        sys.exit(f"error: {error}")


def run() -> None:
    """Entry point of `python -m trajvit_jax.models.summary`."""
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flag_as_required("config")
    # JAX tells of every kind of device that it does not find.
    logging.getLogger("jax").setLevel(logging.WARNING)
    app.run(main, flags_parser=reader(_CONFIG, __doc__))


if __name__ == "__main__":
    run()
