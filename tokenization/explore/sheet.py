"""A contact sheet: frames above, their trajectories below, key frames marked."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from tokenization.explore import view
from tokenization.explore.colours import palette
from tokenization.explore.items import Item
from tokenization.files import replacing
from tokenization.resizing import resize_labels
from tokenization.tubelets import count_tubelets

_PAPER, _INK, _QUIET, _ACCENT = (250, 250, 248), (28, 30, 34), (120, 124, 132), (198, 120, 0)
_MARGIN, _GAP, _HEADER, _LABEL = 24, 6, 66, 22


def headline(item: Item) -> str:
    """`id · 16 frames · 137 trajectory tokens vs 1,568 tubelets`."""
    frames, n = len(item.frames), len(item.trajectories)
    return (
        f"{frames} frame{'s' * (frames != 1)}  ·  {n:,} trajectory token{'s' * (n != 1)} "
        f"vs {count_tubelets(frames):,} tubelets of 2x16x16"
    )


def compose(item: Item, *, columns: int = 8, width: int = 240) -> UInt8[np.ndarray, "h w 3"]:
    """The sheet as a picture.

    Args:
      item: the video.
      columns: frames a row at most.
      width: pixels of one frame; portrait videos take as many in height.
    """
    shown_width, shown_height = view.displayed_size(item)
    scale = width / max(shown_width, shown_height)
    cell_width, cell_height = (max(1, round(s * scale)) for s in (shown_width, shown_height))
    trajectories = item.trajectories
    count = len(item.frames)
    columns = min(columns, count)
    rows = -(-count // columns)
    frames = view.resize_frames(item.frames, cell_width, cell_height)
    labels = resize_labels(trajectories.labels, cell_height, cell_width)
    colours = palette(len(trajectories))

    row_height = _LABEL + 2 * cell_height + _GAP + 2 * _GAP
    sheet_width = max(2 * _MARGIN + columns * (cell_width + _GAP) - _GAP, 520)
    sheet = Image.new("RGB", (sheet_width, _HEADER + rows * row_height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    title, text, small = (ImageFont.load_default(size) for size in (18, 14, 12))
    draw.text((_MARGIN, 16), trajectories.video.id, _INK, title)
    draw.text((_MARGIN, 40), headline(item), _QUIET, text)
    if item.captions:
        left = _MARGIN + 24 + draw.textlength(headline(item), text)
        room = int((sheet_width - _MARGIN - left) / 7)
        if room > 20:
            caption = textwrap.shorten(f"“{item.captions[0]}”", room, placeholder=" …")
            draw.text((left, 40), caption, _INK, text)
    for index in range(count):
        x = _MARGIN + (index % columns) * (cell_width + _GAP)
        y = _HEADER + (index // columns) * row_height + _LABEL
        label = f"{index + 1}   {trajectories.frame_times[index]:.2f} s"
        is_key = bool(trajectories.key_frames[index])
        if is_key:
            centre = y - _LABEL / 2 + 2
            draw.regular_polygon((x + 5, centre, 5), 4, rotation=45, fill=_ACCENT)
        draw.text((x + 14 * is_key, y - _LABEL + 5), label, _ACCENT if is_key else _QUIET, small)
        sheet.paste(Image.fromarray(frames[index]), (x, y))
        overlay = view.paint(frames[index], labels[index], colours)
        sheet.paste(Image.fromarray(overlay), (x, y + cell_height + _GAP))
    return np.asarray(sheet)


def write_sheet(
    path: str | os.PathLike[str], item: Item, *, columns: int = 8, width: int = 240
) -> None:
    """Writes the sheet as a .png that appears whole or not at all.

    Raises:
      OSError: the file cannot be written.
    """
    sheet = Image.fromarray(compose(item, columns=columns, width=width))
    with replacing(Path(path)) as partial:
        sheet.save(partial, format="PNG", optimize=True)
