"""Settings of what a run reads."""

from __future__ import annotations

import dataclasses
import math

from trajvit_jax.config import require_positive
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.steps import ReadingSettings


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Where the records are and how they are read.

    Attributes:
      train: folder of records, as written by `tokenization.extract`: for one stream of one
        source; '' = as `streams` say.
      train_split: its split to train on.
      evaluation: folder of records to evaluate on; '' = the first one to train on.
      eval_split: its split to evaluate on.
      vocabulary: a BERT vocab.txt; '' = learned from the training captions. A run that goes on
        keeps the words that are in its workdir.
      batch: videos a step, for `train`.
      packing: rows that videos share, for `train`; None = one video a row.
      streams: several streams or sources to train on, in place of `train`.
      eval_batch: videos embedded at once.
      threads: see `ReadingSettings`, as for the next two.
      workers: processes that read; 0 = threads of this one.
      cache: training videos that stay in memory at the size they are handed over in; for small
        datasets.
      max_bad: of the records that a run reads, the share that it may have to leave out because
        they are damaged or have no caption; ten it may always.

    Raises:
      ValueError: a count under 1, a share outside 0..1, `train` and `streams` at once, or two
        streams of one name.
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
    max_bad: float = 0.01

    def __post_init__(self) -> None:
        require_positive(self, "batch", "eval_batch")
        self.reading()
        if not 0 <= self.max_bad <= 1 or math.isnan(self.max_bad):
            raise ValueError(f"data.max_bad must be a share within 0..1, got {self.max_bad}")
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
