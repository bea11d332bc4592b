"""What a step read: frames, tokens in colour and captions of a batch, as one HTML page."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Integer, UInt8

from tokenization.explore.colours import palette
from tokenization.files import write_text
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.wordpiece import WordPiece

_FRAMES = 8  # shown of each video, evenly spread
_STYLE = (
    "body{font:14px system-ui;margin:2em;background:#111;color:#ddd}"
    "img{image-rendering:pixelated;display:block;margin:.3em 0}figure{margin:0 0 2em}"
    "figcaption{max-width:70em}small{color:#999}"
)


def write_sample_page(
    path: Path, batch: Batch, text: WordPiece, ids: Sequence[str] = (), *, most: int = 16
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      path: of the page.
      batch: on this host, as it was read: before the step crops and colours it.
      text: of the run.
      ids: of the records, in the order of the batch.
      most: videos shown.
    """
    video, labels = np.asarray(batch.video), np.asarray(batch.labels)
    figures = []
    for number in range(min(most, len(video))):
        shown = np.unique(np.linspace(0, video.shape[1] - 1, _FRAMES).round().astype(int))
        strip = _strip(_pixels(video[number, shown]), labels[number, shown])
        name = html.escape(ids[number] if number < len(ids) else f"video {number + 1}")
        words = html.escape(text.words(np.asarray(batch.text)[number]))
        seen = np.unique(labels[number])
        facts = f"{np.count_nonzero(seen)} tokens visible, {int(batch.dropped[number])} dropped"
        figures.append(
            f"<figure><img src='data:image/png;base64,{_png(strip)}' alt='frames and tokens'>"
            f"<figcaption>{words}<br><small>{name}: {facts}</small></figcaption></figure>"
        )
    page = (
        "<!doctype html><meta charset=utf-8><title>What a step read</title>"
        f"<style>{_STYLE}</style><h1>What a step read</h1>"
        "<p>Frames above, their tokens below: one colour a token, black where there is none.</p>"
        + "".join(figures)
    )
    write_text(path, page)


def _pixels(frames: np.ndarray) -> UInt8[np.ndarray, "t h w 3"]:
    if frames.dtype == np.uint8:
        return frames
    # Normalized pixels: each frame stretched, which shows what was done to it well enough.
    low, high = frames.min(), frames.max()
    return ((frames - low) / max(float(high - low), 1e-6) * 255).astype(np.uint8)


def _strip(
    frames: UInt8[np.ndarray, "t h w 3"], labels: Integer[np.ndarray, "t y x"]
) -> UInt8[np.ndarray, "_ _ 3"]:
    size = (frames.shape[2], frames.shape[1])
    colours = [
        cv2.resize(colour, size, interpolation=cv2.INTER_NEAREST)
        for colour in palette(int(labels.max(initial=0)))[labels]
    ]
    return np.concatenate([np.concatenate(list(frames), 1), np.concatenate(colours, 1)], 0)


def _png(image: UInt8[np.ndarray, "h w 3"]) -> str:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return base64.b64encode(data.tobytes()).decode()
