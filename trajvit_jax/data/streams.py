"""Streams of training steps over opened records: which records a step reads, and where they go."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64, Integer

from trajvit_jax.data.clips import Clips
from trajvit_jax.data.index import Place, RecordIndex, check_index, find_place, read_index
from trajvit_jax.data.packing import place, plan
from trajvit_jax.data.row_fit import advice
from trajvit_jax.data.schedule import Reads, StreamSettings, reads, shares
from trajvit_jax.data.source import Record, RecordSource, open_records
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows

_ADVICE_FROM = 8  # steps whose videos tell whether rows fit


@dataclasses.dataclass(frozen=True, eq=False)
class Stream:
    """A stream and its records.

    Attributes:
      settings: of the stream.
      sources: one for each of the settings' sources.

    Raises:
      ValueError: another number of sources, or one with fewer records than a batch takes of it.
    """

    settings: StreamSettings
    sources: tuple[Sequence[Record], ...]

    def __post_init__(self) -> None:
        own = self.settings
        if len(self.sources) != len(own.sources):
            raise ValueError(
                f"stream {own.name!r}: {len(self.sources)} sources for {len(own.sources)} settings"
            )
        for source, records, share in zip(own.sources, self.sources, self.shares, strict=True):
            if len(records) < share:
                whole = f"one batch of {share}"
                if share < own.batch:
                    whole = f"the {share} of a batch of {own.batch} that are due to it"
                raise ValueError(
                    f"{source.path} holds {len(records)} records, fewer than {whole}; lower the "
                    f"batch of stream {own.name!r} (data.batch) or extract more videos"
                )

    @functools.cached_property
    def shares(self) -> tuple[int, ...]:
        """Videos of a batch that come from each source.

        Raises:
          ValueError: a source too small to be in every batch.
        """
        own = self.settings
        weights = [
            source.weight or len(records)
            for source, records in zip(own.sources, self.sources, strict=True)
        ]
        try:
            return shares(weights, own.batch)
        except ValueError as error:
            paths = ", ".join(source.path for source in own.sources)
            raise ValueError(f"stream {own.name!r} of {paths}: {error}") from error

    @functools.cached_property
    def counts(self) -> tuple[Integer[np.ndarray, " n"], ...]:
        """Trajectories of every record of each source, as stored; those of a dataset as uint16.

        Workers get a copy of them.
        """
        return tuple(
            source.notes.trajectories
            if isinstance(source, RecordSource)
            else trajectory_counts(source)
            for source in self.sources
        )

    def counts_of(self, read: Reads, most: int) -> Int64[np.ndarray, " b"]:
        """Trajectories of the records of a step, in its order.

        Args:
          read: the records.
          most: trajectories that a record counts for at most.
        """
        counts = np.zeros(len(read.record), np.int64)
        for source, own in enumerate(self.counts):
            chosen = read.source == source
            counts[chosen] = np.minimum(own[read.record[chosen]].astype(np.int64), most)
        return counts

    def row_advice(self, number: int, model: ModelSettings, seed: int) -> str | None:
        """What to tell if rows fit the first steps badly, see `trajvit_jax.data.row_fit.advice`.

        Args:
          number: of the stream, among the run's.
          model: that reads it.
          seed: of the run.
        """
        if self.settings.packing is None or model.name != "trajvit":
            return None
        lengths = [len(source) for source in self.sources]
        first = [
            self.counts_of(
                reads(self.shares, lengths, earlier, seed=seed, stream=number),
                model.trajvit.max_trajectories,
            )
            for earlier in range(_ADVICE_FROM)
        ]
        return advice(self.settings, first, each=model.trajvit.tokens_each)

    @functools.cached_property
    def indexes(self) -> tuple[RecordIndex, ...]:
        """Of each source."""
        return tuple(read_index(source) for source in self.sources)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the stored frames; `check` says whether it is that of all."""
        return self.indexes[0].size

    def place(self, source: int, record: int) -> Place:
        """Where a record of a source is, by their numbers."""
        return find_place(self.sources[source], self.indexes[source], record)

    def model(self, settings: ModelSettings) -> ModelSettings:
        """The model as it reads this stream."""
        return dataclasses.replace(settings, frames=self.settings.frames)

    def check(self) -> None:
        """Checks all records by what is noted of them, so that what does not fit shows early.

        Raises:
          ValueError: a record with another number of frames than the stream's, which the message
            names with its file; or sources of several sizes.
        """
        sizes = {}
        for own, source, index in zip(
            self.settings.sources, self.sources, self.indexes, strict=True
        ):
            check_index(source, index, self.settings.frames)
            sizes[own.path] = index.size
        if len(set(sizes.values())) > 1:
            found = ", ".join(f"{path}: {h}x{w}" for path, (h, w) in sizes.items())
            raise ValueError(
                f"stream {self.settings.name!r} mixes records of several sizes ({found}); extract "
                "them with one record_size"
            )


def trajectory_counts(source: Sequence[Record]) -> Int64[np.ndarray, " n"]:
    """Trajectories of every record, as stored."""
    if isinstance(source, Clips):  # a view has at most as many
        return np.repeat(trajectory_counts(source.source), source.views)
    if isinstance(source, RecordSource):
        return source.counts
    return np.array([len(record.trajectories) for record in source], np.int64)


def open_streams(settings: Sequence[StreamSettings]) -> tuple[Stream, ...]:
    """Opens the records of every stream.

    Raises:
      RecordsError: a folder that holds no such records.
      ValueError: fewer records than a batch takes.
    """
    return tuple(
        Stream(one, tuple(open_records(source.path, source.split) for source in one.sources))
        for one in settings
    )


def fingerprint(streams: Sequence[Stream]) -> str:
    """What the records of all streams were made from, for `trajvit_jax.experiment.check`."""
    return "+".join(
        source.fingerprint
        for stream in streams
        for source in stream.sources
        if isinstance(source, RecordSource)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class StepPlan:
    """What all processes together read in a step, in its order.

    Attributes:
      reads: the records.
      most: trajectories of each that may have a slot.
      start: slot of each video's CLS.
      rows: of all groups; None = one video a row.
    """

    reads: Reads
    most: Int64[np.ndarray, " b"]
    start: Int64[np.ndarray, " b"]
    rows: Rows | None


class StepPlans:
    """The plan of each of a stream's steps, by its number; the last few are remembered.

    Many threads ask for the same plan at once: one makes it, and the others wait.
    """

    def __init__(self, stream: Stream, number: int, model: ModelSettings, seed: int):
        """Args: the stream, its number among the streams, the model, and the run's seed."""
        self._made_of = stream, number, model, seed
        self._recent = functools.lru_cache(maxsize=8)(self._make)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[StepPlans], tuple[Stream, int, ModelSettings, int]]:
        """Without what is remembered: for worker processes."""
        return StepPlans, self._made_of

    def __call__(self, earlier: int) -> StepPlan:
        """The plan of the step before which the stream had `earlier` ones."""
        with self._lock:
            return self._recent(earlier)

    def _make(self, earlier: int) -> StepPlan:
        stream, number, model, seed = self._made_of
        lengths = [len(source) for source in stream.sources]
        read = reads(stream.shares, lengths, earlier, seed=seed, stream=number)
        most, packing = model.trajvit.max_trajectories, stream.settings.packing
        if packing is None or model.name != "trajvit":
            b = len(read.record)
            return StepPlan(read, np.full(b, most, np.int64), np.zeros(b, np.int64), None)
        counts = stream.counts_of(read, most)
        each = model.trajvit.tokens_each
        made = plan(counts, packing, each=each)
        ordered = Reads(*(part[made.order] for part in read))
        return StepPlan(ordered, made.kept, made.start, place(made, packing, each=each))
