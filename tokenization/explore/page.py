"""One self-contained HTML page, or a section of a larger one, from videos and trajectories.

Label maps travel as a deflate stream and are inflated by the browser into an array. They
are no image on purpose: reading pixels back from a canvas is subject to colour management
and, in browsers that protect from fingerprinting, to deliberate noise.
"""

from __future__ import annotations

import base64
import functools
import html
import importlib.resources
import json
import os
import string
import zlib
from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt16

from tokenization.explore import view
from tokenization.explore.colours import palette
from tokenization.explore.items import Item, title_of
from tokenization.files import write_text
from tokenization.resizing import fit, resize_labels
from tokenization.tubelets import count_tubelets

_JPEG_QUALITY = 80
_SCRIPTS = ("data.js", "draw.js", "parts.js", "page.js")


@functools.cache
def _asset(name: str) -> str:
    return (
        importlib.resources.files("tokenization.explore").joinpath(name).read_text(encoding="utf-8")
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def pack_labels(labels: UInt16[np.ndarray, "t h w"]) -> str:
    """Label maps, losslessly: XOR with the row above, low bytes then high ones, zlib, base64.

    The rows of all frames follow one another, so a frame's first row is coded against the
    last row of the frame before.
    """
    rows = labels.reshape(-1, labels.shape[2])
    changes = rows.copy()
    changes[1:] ^= rows[:-1]
    planes = np.stack([changes & 0xFF, changes >> 8]).astype(np.uint8)
    return _base64(zlib.compress(planes.tobytes(), 9))


def _pack_statistics(item: Item) -> dict[str, str]:
    """areas: share of the frame, float32[n,t]; boxes: pixels of the video, uint16[n,t,4]."""
    trajectories = item.trajectories
    height, width = trajectories.labels.shape[1:]
    areas = trajectories.areas() / (height * width)
    shown = view.displayed_size(item)
    video = trajectories.video
    size = (video.width, video.height) if min(video.width, video.height) > 0 else shown
    boxes = np.rint(trajectories.boxes() * np.array([*size, *size]))
    return {
        "areas": _base64(zlib.compress(areas.astype("<f4").tobytes(), 9)),
        "boxes": _base64(zlib.compress(boxes.astype("<u2").tobytes(), 9)),
    }


def _made_by(item: Item) -> str:
    made_by = item.trajectories.made_by
    names = (made_by.get(part) for part in ("segmenter", "tracker"))
    return " + ".join(name for name in names if isinstance(name, str))


def pack_item(item: Item, *, longest: int = 512) -> dict[str, object]:
    """What the page's script reads of one video, as JSON values.

    Args:
      item: the video.
      longest: pixels of the longer side of the pictures.
    """
    height, width = item.frames.shape[1:3]
    width, height = fit(width, height, longest)
    trajectories = item.trajectories
    frames = view.resize_frames(item.frames, width, height)
    quality = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    jpegs = [
        cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), quality)[1] for frame in frames
    ]
    video = trajectories.video
    return {
        "id": video.id,
        "size": [video.width, video.height],
        "shown": list(view.displayed_size(item)),
        "fps": video.fps,
        "duration": video.duration,
        "madeBy": _made_by(item),
        "captions": list(item.captions),
        "width": width,
        "height": height,
        "frames": [_base64(jpeg.tobytes()) for jpeg in jpegs],
        "labels": pack_labels(resize_labels(trajectories.labels, height, width)),
        "times": [round(float(time), 3) for time in trajectories.frame_times],
        "keyFrames": trajectories.key_frames.tolist(),
        "colours": ["#" + bytes(colour).hex() for colour in palette(len(trajectories))],
        "tubelets": count_tubelets(len(frames)),
        **_pack_statistics(item),
    }


def render_fragment(items: Sequence[Item], *, longest: int = 512, own_keys: bool = False) -> str:
    """A `<section>` to be placed in any HTML page, several times if wanted.

    Its style and markup live in a shadow root, and its script leaves no global behind.

    Args:
      items: the videos, at least one.
      longest: pixels of the longer side of the pictures.
      own_keys: answer to keys anywhere on the page, not only while the pointer or the focus
        is inside.

    Raises:
      ValueError: no videos.
    """
    if not items:
        raise ValueError("nothing to show: at least one video is needed")
    videos = []
    for item in items:
        packed = json.dumps(pack_item(item, longest=longest), separators=(",", ":"))
        # "<" is escaped, so that no caption can end the script element.
        packed = packed.replace("<", "\\u003c")
        name = html.escape(item.trajectories.video.id)
        videos.append(f'<script type="application/json" data-name="{name}">{packed}</script>')
    return string.Template(_asset("fragment.html")).substitute(
        style=_asset("page.css"),
        script='(() => {\n"use strict";\n' + "\n".join(map(_asset, _SCRIPTS)) + "})();",
        videos="\n".join(videos),
        keys="page" if own_keys else "inside",
    )


def render_page(items: Sequence[Item], *, title: str | None = None, longest: int = 512) -> str:
    """A whole page that needs no network: everything is inside.

    Args:
      items: the videos, at least one.
      title: of the document; the videos' names by default.
      longest: pixels of the longer side of the pictures.

    Raises:
      ValueError: no videos.
    """
    fragment = render_fragment(items, longest=longest, own_keys=True)
    title = title or f"Trajectories of {title_of(items)}"
    return string.Template(_asset("page.html")).substitute(
        title=html.escape(title), fragment=fragment
    )


def write_page(
    path: str | os.PathLike[str],
    items: Sequence[Item],
    *,
    title: str | None = None,
    longest: int = 512,
) -> None:
    """Writes the page; it appears whole or not at all.

    Raises:
      ValueError: no videos.
      OSError: the file cannot be written.
    """
    page = render_page(items, title=title, longest=longest)
    write_text(path, page)
