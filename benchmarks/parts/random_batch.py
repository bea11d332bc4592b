"""Batches of noise with the shapes, the counts and the plan of real ones."""

from __future__ import annotations

import numpy as np

from benchmarks.parts.panda_counts import PANDA_CLIPS_FROM_FIRST, PANDA_IMAGES
from trajvit_jax.data.abstract import abstract_batch
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.packing import first_slots, place, plan
from trajvit_jax.data.schedule import StreamSettings
from trajvit_jax.models.settings import ModelSettings

_BLOCKS = 8  # a side: 64 segments a frame


def random_batch(
    stream: StreamSettings, model: ModelSettings, *, stored: int | None, seed: int = 0
) -> Batch:
    """A step's batch as NumPy arrays.

    Trajectories are as many as in clips of Panda-70M whose labels start in the first frame: a
    hundred on average, for which the rows of the paper's runs are made.

    Args:
      stream: whose batch it is.
      model: that reads it.
      stored: as in `abstract_batch`.
      seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    like = abstract_batch(stream, model, stored=stored)
    b = stream.batch
    counts = rng.choice(PANDA_IMAGES if stream.frames == 1 else PANDA_CLIPS_FROM_FIRST, b)
    counts = np.minimum(counts, model.trajvit.max_trajectories)
    rows, starts = None, np.zeros(b, np.int64)
    if like.rows is not None and stream.packing is not None:
        each = model.trajvit.tokens_each
        made = plan(counts, stream.packing, each=each)
        rows, starts, counts = place(made, stream.packing, each=each), made.start, made.kept
    text = rng.integers(1, model.text.vocabulary, like.text.shape, dtype=np.int32)
    lengths = rng.integers(4, model.text.length + 1, (b, 1))
    # Eight videos in turn: how long a step takes does not depend on their pixels.
    pixels = rng.integers(0, 256, (min(b, 8), *like.video.shape[1:]), dtype=np.uint8)
    return Batch(
        video=pixels[np.arange(b) % len(pixels)],
        labels=_labels(rng, counts, starts, like.labels.shape).astype(like.labels.dtype),
        text=text,
        text_mask=np.arange(model.text.length) < lengths,
        caption_hash=rng.integers(0, 2**32, (b, 2), dtype=np.uint32),
        dropped=np.zeros(b, np.int32),
        sample=rng.integers(0, 2**32, (b, 2), dtype=np.uint32),
        epoch=np.zeros(b, np.int32),
        rows=rows,
        present=np.ones(b, bool),
    )


def _labels(
    rng: np.random.Generator, counts: np.ndarray, starts: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
    """Frames cut into blocks, each of one of the video's trajectories."""
    _, frames, height, width = shape
    labels = np.zeros(shape, np.int64)
    y, x = (np.arange(size) * _BLOCKS // size for size in (height, width))
    for video, (count, start) in enumerate(zip(counts.tolist(), starts.tolist(), strict=True)):
        if count:
            drawn = rng.choice(first_slots(start, count), (frames, _BLOCKS, _BLOCKS))
            labels[video] = drawn[:, y][:, :, x]
    return labels
