"""Checkpoints of other programs in our names, and back.

Whatever a checkpoint is of, its arrays are read into those of a `VideoTextModel`: all of them
(a released video-text model), its video side (a released encoder, a ViT), the backbone (a
ResNet) or the text side (a BERT).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from flax import nnx

from trajvit_jax.convert import released, sizes, spellings
from trajvit_jax.convert.kinds import KINDS, TEXT_SIDE, Arrays, Choices, Layout, recognize
from trajvit_jax.convert.pieces import Piece, paths, read, write
from trajvit_jax.convert.report import Report
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import VideoTextModel


@dataclasses.dataclass(frozen=True)
class Converted:
    """A checkpoint in our names.

    Attributes:
      layout: how it was named.
      settings: of the model that its arrays are of; what it has no part of is at the default.
      arrays: by dotted path of `VideoTextModel`; only those that were filled.
      report: what was used.
      unused: those left over that its own program does not read either.
    """

    layout: Layout
    settings: ModelSettings
    arrays: Arrays
    report: Report
    unused: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for a person to read."""
        what = KINDS[self.layout.kind].what + (", video-text model" if self.layout.whole else "")
        lines = [f"{self.layout.kind}: {what}", *describe(self.settings, self.layout)]
        lines += self.report.lines()
        if self.unused:
            lines.append(
                f"  {len(self.unused)} of these are not read by the program they come from either"
            )
        return lines


def convert(
    found: Mapping[str, np.ndarray], kind: str | None = None, choices: Choices | None = None
) -> Converted:
    """A checkpoint in our names, as far as it goes: see `Converted.report`.

    Args:
      found: its arrays by name.
      kind: one of `KINDS`; None = told by the names.
      choices: what arrays do not tell.

    Raises:
      ValueError: names of no kind, or without the arrays that sizes are read off.
    """
    layout = recognize(found, kind)
    spelled = _below(found, layout.prefix, KINDS[layout.kind].respell)
    settings = settings_of(spelled, layout, choices)
    if layout.whole:
        spelled = _below(spelled, layout.root + TEXT_SIDE, spellings.bert)
    pieces = list(pieces_of(settings, layout))
    arrays, report = read(pieces, spelled, paths(abstract_model(settings)))
    used = set(report.used)
    partly = {piece.ours for piece in pieces if piece.theirs not in used}
    arrays = {name: array for name, array in arrays.items() if name not in partly}
    unused = tuple(name for name in report.left_over if is_unused(name, layout, settings))
    return Converted(layout, settings, arrays, report, unused)


def convert_back(
    arrays: Mapping[str, np.ndarray], settings: ModelSettings, layout: Layout
) -> Arrays:
    """Our arrays under the names that they came from; those the model never read are not there.

    Raises:
      ValueError: arrays that are not all there.
    """
    pieces = list(pieces_of(settings, layout))
    missing = sorted({piece.ours for piece in pieces} - set(arrays))
    if missing:
        raise ValueError(
            f"{len(missing)} arrays of a {layout.kind} are missing, among them {missing[:5]}"
        )
    return write(pieces, arrays)


def pieces_of(settings: ModelSettings, layout: Layout) -> Iterator[Piece]:
    """The table of all arrays that a checkpoint so named has for a model of these settings."""
    yield from KINDS[layout.kind].pieces(settings, layout.prefix)
    if layout.whole:
        yield from released.rest_of_clip(settings, theirs=layout.root)


def settings_of(
    found: Mapping[str, np.ndarray], layout: Layout, choices: Choices | None = None
) -> ModelSettings:
    """The settings of the model that a checkpoint is of, by the shapes of its arrays.

    Raises:
      ValueError: arrays that sizes are read off are not there.
    """
    choices = choices or Choices()
    start = len(layout.prefix)
    own = {n[start:]: a for n, a in found.items() if n.startswith(layout.prefix)}
    settings = KINDS[layout.kind].settings(own, choices)
    if not layout.whole:
        return settings
    text = sizes.text_settings(found, layout.root + TEXT_SIDE, heads=choices.text_heads)
    projection = found.get(f"{layout.root}vision_proj.weight")
    if projection is None or projection.ndim != 2:
        return dataclasses.replace(settings, text=text)  # the report says what is wrong
    return dataclasses.replace(settings, text=text, projection=projection.shape[0])


def describe(settings: ModelSettings, layout: Layout) -> list[str]:
    """The sizes and switches of what a checkpoint holds, for a person to check."""
    lines, encoder, text, own = [], settings.encoder, settings.text, settings.trajvit
    if layout.kind in ("trajvit", "resnet"):
        widths = ", ".join(map(str, own.resnet.widths))
        blocks = ", ".join(map(str, own.resnet.depths))
        lines.append(f"  ResNet: {own.resnet.block} blocks {blocks} of widths {widths}")
    if layout.kind == "trajvit":
        lines.append(f"  trajectories: {own.position}, {own.resampler.frame_positions} frames")
    if layout.kind in ("vit", "vit3d"):
        lines.append(
            f"  tubelets: {settings.vit3d.tubelet}x{settings.vit3d.patch}x{settings.vit3d.patch} "
            f"of {settings.frames} frames of {settings.image_size} px"
        )
    if layout.kind in ("trajvit", "vit", "vit3d"):
        lines.append(
            f"  video encoder: width {encoder.width}, {encoder.heads} heads, "
            f"{encoder.depth} layers, run {encoder.passes}x"
        )
    if layout.kind == "bert" or layout.whole:
        lines.append(
            f"  text encoder: width {text.width}, {text.heads} heads, "
            f"{text.layers_run or text.depth} of {text.depth} layers run"
        )
    return lines


def is_unused(name: str, layout: Layout, settings: ModelSettings) -> bool:
    """Whether the program that an array comes from keeps it without reading it."""
    own = name.removeprefix(layout.prefix)
    if name.startswith(layout.prefix) and re.match(KINDS[layout.kind].unused, own):
        return True
    if not layout.whole:
        return False
    rest = name.removeprefix(layout.root)
    if rest.startswith("itm_head.") or rest == f"{TEXT_SIDE}embeddings.position_ids":
        return True
    layer = re.match(rf"{re.escape(TEXT_SIDE)}encoder\.layer\.(\d+)\.", rest)
    return bool(layer) and int(layer[1]) >= (settings.text.layers_run or settings.text.depth)


def abstract_model(settings: ModelSettings) -> VideoTextModel:
    """The model with shapes in place of arrays."""
    return nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0)))


def _below(
    found: Mapping[str, np.ndarray],
    prefix: str,
    respell: Callable[[Mapping[str, np.ndarray]], Arrays],
) -> Arrays:
    """The arrays, those below a prefix spelled anew."""
    others = {n: a for n, a in found.items() if not n.startswith(prefix)}
    own = {n.removeprefix(prefix): a for n, a in found.items() if n.startswith(prefix)}
    return others | {prefix + n: a for n, a in respell(own).items()}
