"""Checkpoints of other programs in our names, and back.

Whatever a checkpoint is of, its arrays are read into those of a `VideoTextModel`: all of them
(a released video-text model), its video side (a released encoder, a ViT), the backbone (a
ResNet) or the text side (a BERT).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping

import numpy as np
from flax import nnx

from trajvit_jax.convert import released, sizes, spellings
from trajvit_jax.convert.descriptions import assumed, describe, is_unused, notes
from trajvit_jax.convert.kinds import KINDS, TEXT_SIDE, Arrays, Choices, Layout, recognize
from trajvit_jax.convert.pieces import Piece, paths, read, write
from trajvit_jax.convert.report import Report, paragraph, summarize
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
      assumed: what the arrays do not tell and nobody said, in words.
      notes: what to look at again.
    """

    layout: Layout
    settings: ModelSettings
    arrays: Arrays
    report: Report
    unused: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """The report for a person to read, with the names of all arrays."""
        lines = [*self._head(), *self.report.lines()]
        if self.unused:
            lines.append(
                f"  {len(self.unused)} of these are not read by the program they come from either"
            )
        return lines

    def summary(self) -> list[str]:
        """The same in few lines if nothing is missing; all lines otherwise."""
        report = self.report
        if not report.is_complete:
            return self.lines()
        ours = f"{len(self.arrays)} arrays of the model"
        if len(self.arrays) < len(report.used):
            ours += ", in which layers are stacked, and query, key and value joined"
        lines = [*self._head(), f"used: {len(report.used)} arrays, which fill {ours}"]
        if report.cast:
            dtypes = ", ".join(dict.fromkeys(cast.found for cast in report.cast))
            lines.append(f"cast: {len(report.cast)} of these, from {dtypes} to float32")
        others = [name for name in report.left_over if name not in set(self.unused)]
        if self.unused:
            count = len(self.unused)
            lines.append(f"left over: {count} arrays that the program they come from never reads")
        if others:
            lines += paragraph(
                f"left over: {len(others)} arrays that this model has no place for",
                summarize(others, {*report.used, *report.left_over}),
            )
        return lines

    def _head(self) -> list[str]:
        what = KINDS[self.layout.kind].what + (", video-text model" if self.layout.whole else "")
        lines = [f"{self.layout.kind}: {what}", *describe(self.settings, self.layout)]
        if self.assumed:
            lines.append("assumed, as arrays do not tell it:")
            lines += [f"  {assumption}" for assumption in self.assumed]
        return lines + [f"note: {note}" for note in self.notes]


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
    layout, choices = recognize(found, kind), choices or Choices()
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
    return Converted(
        layout,
        settings,
        arrays,
        report,
        unused,
        assumed=tuple(assumed(settings, layout, choices, found)),
        notes=tuple(notes(layout, choices, found, used)),
    )


def convert_back(
    arrays: Mapping[str, np.ndarray], settings: ModelSettings, layout: Layout
) -> Arrays:
    """Our arrays under the names that they came from; those the model never read are not there.

    Raises:
      ValueError: arrays that are not all there, or that never had other names.
    """
    if layout.kind not in KINDS:
        raise ValueError(
            "the arrays are of a model that was trained here: they have no other names"
        )
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
    text = dataclasses.replace(text, cleaning="released")  # its captions were
    projection = found.get(f"{layout.root}vision_proj.weight")
    if projection is None or projection.ndim != 2:
        return dataclasses.replace(settings, text=text)  # the report says what is wrong
    return dataclasses.replace(settings, text=text, projection=projection.shape[0])


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
