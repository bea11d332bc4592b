"""What the model was fed: frames, trajectories and captions of a batch, as an HTML page."""

from __future__ import annotations

import base64
import html
import urllib.parse
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Integer, UInt8

from tokenization.explore.colours import palette
from tokenization.files import write_text
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.steps import Loaded
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.video_text import normalize_pixels
from trajvit_jax.sharding import MeshSettings, make_mesh
from trajvit_jax.step import StepSettings, fed

_VIDEOS = 16  # shown of a batch
_FRAMES = 8  # shown of each video, evenly spread
_WIDTH = 112  # of a frame on the page, in pixels, at least
_STYLE = (
    "body{font:14px system-ui;margin:2em;background:#111;color:#ddd}"
    "img{image-rendering:pixelated;display:block;margin:.3em 0}figure{margin:0 0 2em}"
    "figcaption{max-width:70em}small{color:#999}"
)


class SamplePages:
    """Writes `samples-STREAM.html` in a workdir for the first step of each stream.

    Pages of an earlier part of the run stay. Process 0 writes, and shows what it read itself.

    Args:
      workdir: of the run.
      settings: of its steps.
      model: whose sizes videos get.
      text: of the captions.
      seed: of the run.
      first: the step it goes on from.
    """

    def __init__(
        self,
        workdir: Path,
        settings: StepSettings,
        model: ModelSettings,
        text: WordPiece,
        *,
        seed: int,
        first: int,
    ):
        self._workdir, self._text, self._resumed = workdir, text, first > 0
        self._trajectories = model.name == "trajvit"
        self._fed = jax.jit(lambda batch: fed(batch, settings, model, seed))
        self._shown: set[str] = set()

    def show(self, step: int, loaded: Loaded) -> None:
        """Writes the page of the step's stream, if it has none yet."""
        if jax.process_index() > 0 or loaded.stream in self._shown:
            return
        self._shown.add(loaded.stream)
        name = urllib.parse.quote(loaded.stream, safe=" ")
        path = self._workdir / f"samples-{name}.html"
        if self._resumed and path.exists():
            return
        # Rows are where tokens go: nothing to look at. One device, and no other process, does it.
        some = jax.tree.map(lambda x: x[:_VIDEOS], loaded.batch.replace(rows=None))
        with jax.set_mesh(make_mesh(MeshSettings(), jax.local_devices()[:1])):
            batch = jax.device_get(self._fed(some))
            title = f"Stream {loaded.stream}, step {step}: what the model was fed"
            write_sample_page(
                path, batch, self._text, loaded.ids, title=title, trajectories=self._trajectories
            )


def write_sample_page(
    path: Path,
    batch: Batch,
    text: WordPiece,
    ids: Sequence[str] = (),
    *,
    title: str = "What the model was fed",
    trajectories: bool = True,
) -> None:
    """Writes the page; it needs no other file and no network.

    Args:
      path: of the page.
      batch: NumPy arrays as they enter the model.
      text: of the run.
      ids: of the records, in the order of the batch.
      title: of the page.
      trajectories: what the model reads, and its tokens are of; a model that reads patches is
        shown with its frames alone.
    """
    figures = []
    for number in range(min(_VIDEOS, len(batch.video))):
        video, labels = np.asarray(batch.video[number]), np.asarray(batch.labels[number])
        shown = np.unique(np.linspace(0, len(video) - 1, _FRAMES).round().astype(int))
        strip = _strip(_pixels(video[shown]), labels[shown] if trajectories else None)
        name = html.escape(ids[number] if number < len(ids) else f"video {number + 1}")
        words = html.escape(text.words(np.asarray(batch.text[number][batch.text_mask[number]])))
        facts = ""
        if batch.present is not None and not batch.present[number]:
            facts = ": could not be used, see bad_records.jsonl"
        elif trajectories:
            tokens = np.count_nonzero(np.unique(labels))
            facts = f": {tokens} tokens visible, {int(batch.dropped[number])} dropped"
        figures.append(
            f"<figure><img src='data:image/png;base64,{_png(strip)}' alt='what was fed'>"
            f"<figcaption>{words}<br><small>{name}{facts}</small></figcaption></figure>"
        )
    what = "Frames after augmentation. "
    if trajectories:
        what = (
            "Frames after augmentation above, the same under their tokens below: one colour a "
            "token, plain where there is none. "
        )
    page = (
        f"<!doctype html><meta charset=utf-8><title>{html.escape(title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
        f"<p>{what}Captions as the tokens that were read.</p>" + "".join(figures)
    )
    write_text(path, page)


def _pixels(frames: UInt8[np.ndarray, "t h w 3"] | Float[np.ndarray, "t h w 3"]) -> np.ndarray:
    """0..255; floats are normalized, which is undone."""
    if frames.dtype == np.uint8:
        return frames
    black, white = (
        np.asarray(normalize_pixels(jnp.full((1, 1, 1, 1, 3), value, jnp.float32)))[0]
        for value in (0, 255)
    )
    return np.clip((frames - black) / (white - black) * 255, 0, 255).round().astype(np.uint8)


def _strip(
    frames: UInt8[np.ndarray, "t h w 3"], labels: Integer[np.ndarray, "t y x"] | None
) -> UInt8[np.ndarray, "_ _ 3"]:
    """Frames side by side; below, if there are labels, half of each pixel is its token's colour."""
    size = (frames.shape[2] * -(-_WIDTH // frames.shape[2]),) * 2
    large = [cv2.resize(frame, size, interpolation=cv2.INTER_NEAREST) for frame in frames]
    if labels is None:
        return np.concatenate(large, 1)
    colours = palette(int(labels.max(initial=0)))
    covered = []
    for frame, own in zip(large, labels, strict=True):
        cells = cv2.resize(own.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
        mixed = (frame // 2) + (colours[cells] // 2)
        covered.append(np.where(cells[..., None] > 0, mixed, frame))
    return np.concatenate([np.concatenate(large, 1), np.concatenate(covered, 1)], 0)


def _png(image: UInt8[np.ndarray, "h w 3"]) -> str:
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return base64.b64encode(data.tobytes()).decode()
