"""What a run reads: settings, training steps of one source, and evaluation videos."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from trajvit_jax.config import require_positive
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.samples import video_sample
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.source import Record
from trajvit_jax.data.steps import ReadingSettings, train_steps
from trajvit_jax.data.streams import Stream
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the records are and how they are read.

    Attributes:
      train: folder of records, as written by `tokenization.extract`: for one stream of one
        source; '' = as `streams` say.
      train_split: its split to train on.
      evaluation: folder of records to evaluate on; '' = the first one to train on.
      eval_split: its split to evaluate on.
      vocabulary: a BERT vocab.txt; '' = learned from the training captions.
      batch: videos a step, for `train`.
      packing: rows that videos share, for `train`; None = one video a row.
      streams: several streams or sources to train on, in place of `train`.
      eval_batch: videos embedded at once.
      threads: see `ReadingSettings`, as for the next two.
      workers: processes that read; 0 = threads of this one.
      cache: training videos that stay in memory at the size they are handed over in; for small
        datasets.

    Raises:
      ValueError: a count under 1, `train` and `streams` at once, or two streams of one name.
    """

    train: str = ""
    train_split: str = "train"
    evaluation: str = ""
    eval_split: str = "test"
    vocabulary: str = ""
    batch: int = 256
    packing: PackingSettings | None = None
    streams: tuple[StreamSettings, ...] = ()
    eval_batch: int = 64
    threads: int = 4
    workers: int = 0
    cache: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "batch", "eval_batch")
        self.reading()
        if self.train and self.streams:
            raise ValueError(
                f"data.train ({self.train!r}) and data.streams both say what to train on; "
                "set data.train = ''"
            )
        names = [stream.name for stream in self.streams]
        if len(set(names)) < len(names):
            raise ValueError(f"streams need names of their own, got {', '.join(names)}")

    def reading(self) -> ReadingSettings:
        """How records are read."""
        return ReadingSettings(self.threads, self.workers, self.cache)

    def train_streams(self, frames: int) -> tuple[StreamSettings, ...]:
        """The streams to train on; `frames`, the model's, are those of the records of `train`."""
        if self.streams:
            return self.streams
        source = SourceSettings(self.train, self.train_split)
        return (StreamSettings("video", frames, self.batch, (source,), packing=self.packing),)

    @property
    def train_sources(self) -> tuple[SourceSettings, ...]:
        """The folders of all streams."""
        return tuple(source for stream in self.train_streams(1) for source in stream.sources)

    @property
    def evaluation_folder(self) -> str:
        """Where the evaluation records are."""
        return self.evaluation or self.train_sources[0].path


def train_batches(
    source: Sequence[Record],
    model: ModelSettings,
    text: WordPiece,
    settings: DataSettings,
    *,
    seed: int,
    start: int = 0,
) -> Iterator[Batch]:
    """Endless batches of one opened source, see `train_steps`.

    Raises:
      ValueError: as `Stream` and `train_steps` say.
    """
    (own,) = dataclasses.replace(settings, streams=()).train_streams(model.frames)
    steps = train_steps(
        [Stream(own, (source,))], model, text, seed=seed, start=start, reading=settings.reading()
    )
    return (loaded.batch for loaded in steps)


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
