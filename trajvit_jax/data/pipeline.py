"""Records -> batches, with grain.

The position in the data is a step: `train_batches(..., start=n)` yields what an unbroken run
would read from step n on, whatever the number of threads.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from trajvit_jax.config import require_positive
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.samples import VideoSample, caption_hash, video_sample
from trajvit_jax.data.source import Record
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the records are and how they are read.

    Attributes:
      train: folder of records, as written by `tokenization.extract`.
      train_split: its split to train on.
      evaluation: folder of records to evaluate on; '' = the one of `train`.
      eval_split: its split to evaluate on.
      vocabulary: a BERT vocab.txt; '' = learned from the training captions.
      batch: videos a step.
      eval_batch: videos embedded at once.
      threads: readers and decoders.
      cache: training videos that stay in memory at the model's size; for small datasets.

    Raises:
      ValueError: a count under 1.
    """

    train: str = ""
    train_split: str = "train"
    evaluation: str = ""
    eval_split: str = "test"
    vocabulary: str = ""
    batch: int = 256
    eval_batch: int = 64
    threads: int = 4
    cache: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "batch", "eval_batch", "threads")

    @property
    def evaluation_folder(self) -> str:
        """Where the evaluation records are."""
        return self.evaluation or self.train


@dataclasses.dataclass(frozen=True)
class _Clip:
    """What training needs of a record."""

    id: str
    captions: tuple[str, ...]
    sample: VideoSample


class _Clips(Sequence[_Clip]):
    """Records at the model's size; the first `cache` that are read stay in memory."""

    def __init__(self, source: Sequence[Record], model: ModelSettings, cache: int):
        self._source, self._model, self._cache = source, model, cache
        self._kept: dict[int, _Clip] = {}

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: Any) -> Any:
        if index in self._kept:
            return self._kept[index]
        record = self._source[index]
        clip = _Clip(record.id, record.captions, video_sample(record, self._model))
        if len(self._kept) < self._cache:
            self._kept[index] = clip
        return clip


@dataclasses.dataclass(frozen=True)
class _ToSample(grain.transforms.RandomMap):
    """Clip -> arrays of one sample; the caption is drawn among those of the video."""

    text: WordPiece

    def random_map(self, element: _Clip, rng: np.random.Generator) -> dict[str, Any]:
        if not element.captions:
            raise ValueError(
                f"record {element.id!r} has no caption to train with; add "
                "'captions' to its manifest line and extract again"
            )
        caption = element.captions[int(rng.integers(len(element.captions)))]
        tokens = self.text([caption])
        return {
            "video": element.sample.video,
            "labels": element.sample.labels,
            "text": tokens.ids[0],
            "text_mask": tokens.mask[0],
            "caption_hash": caption_hash(caption),
            "dropped": np.int32(element.sample.dropped),
        }


def train_batches(
    source: Sequence[Record],
    model: ModelSettings,
    text: WordPiece,
    settings: DataSettings,
    *,
    seed: int,
    start: int = 0,
) -> Iterator[Batch]:
    """Endless batches, reshuffled every epoch, from step `start` on.

    Raises:
      ValueError: fewer records than one batch takes.
    """
    if len(source) < settings.batch:
        raise ValueError(
            f"{settings.train} holds {len(source)} records, fewer than one batch of "
            f"{settings.batch}; lower data.batch or extract more videos"
        )
    dataset = (
        grain.MapDataset.source(_Clips(source, model, settings.cache))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(_ToSample(text))
    )
    # Samples are read ahead, not batches: all threads then work on the batch that is due next.
    options = grain.ReadOptions(
        num_threads=settings.threads, prefetch_buffer_size=2 * settings.batch
    )
    samples = dataset[start * settings.batch :].to_iter_dataset(options)
    for arrays in samples.batch(settings.batch, drop_remainder=True):
        yield Batch(**arrays)


@dataclasses.dataclass(frozen=True)
class EvalVideos:
    """Videos of one evaluation batch; the last rows of the last batch repeat and do not count."""

    video: np.ndarray
    labels: np.ndarray
    captions: tuple[tuple[str, ...], ...]

    @property
    def count(self) -> int:
        """Videos that count."""
        return len(self.captions)


def eval_videos(
    source: Sequence[Record], model: ModelSettings, batch: int, *, threads: int = 4
) -> Iterator[EvalVideos]:
    """Every video once, in the order of the records, in batches of one shape."""

    def load(record: Record) -> dict[str, Any]:
        sample = video_sample(record, model)
        return {"video": sample.video, "labels": sample.labels, "captions": record.captions}

    dataset = grain.MapDataset.source(source).map(load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=batch)
    samples = iter(dataset.to_iter_dataset(options))
    while group := list(itertools.islice(samples, batch)):
        padded = group + group[-1:] * (batch - len(group))
        yield EvalVideos(
            video=np.stack([sample["video"] for sample in padded]),
            labels=np.stack([sample["labels"] for sample in padded]),
            captions=tuple(sample["captions"] for sample in group),
        )
