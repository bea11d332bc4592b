"""Records -> what each step reads, with grain.

The position in the data is one number, the step: `train_steps(..., start=n)` yields what an
unbroken run would read from step n on, whatever the number of threads, workers and processes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset
from jaxtyping import UInt8

from tokenization.trajectories import Trajectories
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.in_place import TOLD, InPlace
from trajvit_jax.data.samples import (
    caption_hash,
    check_frames,
    hash_words,
    in_slots,
    resized,
    usable_captions,
)
from trajvit_jax.data.schedule import Schedule
from trajvit_jax.data.streams import StepPlan, StepPlans, Stream
from trajvit_jax.data.unusable import BadRecord, UnusableRecord, read_record
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows
from trajvit_jax.pod.cores import own_cores

# Sets the draws of captions apart from others that come from the same seed.
_CAPTIONS = 0x63617074


@dataclasses.dataclass(frozen=True)
class ReadingSettings:
    """How records are read; nothing of it changes what is read.

    Attributes:
      threads: readers and decoders, in each worker where there are any, for each stream; 0 = one
        for each of this process's share of the host's cores (`pod.cores`), shared out among the
        workers.
      workers: processes that read, for each stream; 0 = threads of this one. They help where
        Python itself, not decoding, is what takes long: many small images, or more cores than
        the threads of one process keep busy (docs/SCALING.md). What they read travels through
        shared memory (/dev/shm).
      cache: videos of each stream that stay in memory, of each worker where there are any.

    Raises:
      ValueError: a count under 0.
    """

    threads: int = 4
    workers: int = 0
    cache: int = 0

    def __post_init__(self) -> None:
        for name in ("threads", "workers", "cache"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")

    def threads_here(self) -> int:
        """Threads of each process that reads, on this host."""
        return self.threads or -(-own_cores() // max(1, self.workers))


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """What a process reads for a step.

    Attributes:
      stream: name of the stream that the step belongs to.
      batch: this process's part of the batch: whole groups, as NumPy arrays.
      ids: of its records.
      bad: those of them that could not be used: `batch.present` is False for them.
    """

    stream: str
    batch: Batch
    ids: tuple[str, ...]
    bad: tuple[BadRecord, ...] = ()


def train_steps(
    streams: Sequence[Stream],
    model: ModelSettings,
    text: WordPiece,
    *,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    resize: bool = True,
    reading: ReadingSettings = ReadingSettings(),
) -> Iterator[Loaded]:
    """Endless steps from `start` on; each epoch of a source has another order.

    What a step reads, and what is drawn for it, depends on the seed and the step alone. A record
    that turns out to be damaged, or without a caption, keeps its place: it is absent from it, and
    no other record takes it.

    Args:
      streams: whose steps take turns.
      model: whose sizes videos get, and whose slots their trajectories.
      text: of the captions.
      seed: of the run.
      start: the first step.
      process: which part of each batch is read.
      processes: parts of a batch.
      resize: False = frames, and label maps as uint16, are handed over as they are stored, for a
        step that crops them itself.
      reading: how.

    Raises:
      ValueError: a batch that the processes cannot share, or records that do not fit the model.
      OSError: the storage cannot be read (when a step is).
    """
    if not 0 <= process < processes:
        raise ValueError(f"process {process} of {processes} processes")
    for stream in streams:
        own = stream.settings
        if own.batch % (own.group * processes):
            raise ValueError(
                f"stream {own.name!r}: a batch of {own.batch} videos is not a multiple of "
                f"{processes} processes times groups of {own.group}; change its batch"
            )
        stream.check()
    schedule = Schedule([stream.settings.weight for stream in streams])
    parts = [
        Part(stream, number, stream.model(model), text, seed, process, processes, resize)
        for number, stream in enumerate(streams)
    ]
    return _in_turn(parts, schedule, start, reading)


def _in_turn(
    parts: Sequence[Part], schedule: Schedule, start: int, reading: ReadingSettings
) -> Iterator[Loaded]:
    with contextlib.ExitStack() as stack:
        loaded = []
        for number, part in enumerate(parts):
            batches = _batches(part, schedule.earlier(start, number), reading)
            stack.callback(batches.close)
            loaded.append(batches)
        for step in itertools.count(start):
            yield next(loaded[schedule.turn(step).stream])


@dataclasses.dataclass(frozen=True)
class Part:
    """What one process reads of a stream: its part of each step's batch.

    Attributes:
      stream: the stream.
      number: its number among the streams.
      model: as it reads this stream.
      text: of the captions.
      seed: of the run.
      process: which part.
      processes: how many parts there are.
      resize: see `train_steps`.
    """

    stream: Stream
    number: int
    model: ModelSettings
    text: WordPiece
    seed: int
    process: int
    processes: int
    resize: bool

    @property
    def size(self) -> int:
        """Videos of a step."""
        return self.stream.settings.batch // self.processes

    def plans(self) -> StepPlans:
        """The plans of its steps."""
        return StepPlans(self.stream, self.number, self.model, self.seed)

    def rows(self, rows: Rows) -> Rows:
        """Of the rows of all groups, those of this part."""
        groups = len(rows.row) // self.processes
        own = slice(self.process * groups, (self.process + 1) * groups)
        return Rows(rows.video[own], rows.query[own], rows.row[own])


@dataclasses.dataclass(frozen=True)
class _Clip:
    """What training needs of a record."""

    id: str
    captions: tuple[str, ...]
    frames: UInt8[np.ndarray, "t h w 3"]
    trajectories: Trajectories


class Samples:
    """Position in a stream -> arrays of one sample; positions count a part's videos."""

    def __init__(self, part: Part, cache: int = 0, plans: StepPlans | None = None):
        """Args: the part, how many of its videos stay in memory, and its plans, if at hand."""
        self._part, self._cache, self._plans = part, cache, plans or part.plans()
        self._kept: dict[tuple[int, int], _Clip] = {}

    def __call__(self, position: int) -> dict[str, Any]:
        """What `Batch` holds of a video, without `rows`; its `id`; and what is `bad` about it.

        Raises:
          OSError: the storage cannot be read.
        """
        part = self._part
        earlier, place = divmod(position, part.size)
        planned = self._plans(earlier)
        place += part.process * part.size
        source, record, epoch = (int(of_all[place]) for of_all in planned.reads)
        try:
            clip = self._clip(source, record)
        except UnusableRecord as problem:
            return self._absent(source, record, epoch, str(problem))
        return self._present(clip, epoch, planned, place)

    def _present(self, clip: _Clip, epoch: int, planned: StepPlan, place: int) -> dict[str, Any]:
        part = self._part
        labels, dropped = in_slots(
            clip.trajectories,
            int(planned.most[place]),
            start=int(planned.start[place]),
            each=part.model.trajvit.tokens_each if planned.rows is not None else 1,
            dtype=np.int32 if part.resize else np.uint16,
        )
        words = hash_words(clip.id)
        caption = _draw_caption(clip, part.seed, epoch, words)
        tokens = part.text([caption])
        return {
            "id": clip.id,
            "bad": None,
            "present": np.bool_(True),
            "video": clip.frames,
            "labels": labels,
            "text": tokens.ids[0],
            "text_mask": tokens.mask[0],
            "caption_hash": caption_hash(caption),
            "dropped": np.int32(dropped),
            "sample": words,
            "epoch": np.int32(epoch),
        }

    def _absent(self, source: int, number: int, epoch: int, reason: str) -> dict[str, Any]:
        """In the place of a record that cannot be used: nothing, in the same shapes."""
        part = self._part
        place = part.stream.place(source, number)
        side, grid = part.model.image_size, part.model.grid
        size, cells = ((side, side), (grid, grid)) if part.resize else (part.stream.size,) * 2
        tokens = part.text([""])
        return {
            "id": place.id,
            "bad": BadRecord(place.id, place.file, reason),
            "present": np.bool_(False),
            "video": np.zeros((part.model.frames, *size, 3), np.uint8),
            "labels": np.zeros((part.model.frames, *cells), np.int32 if part.resize else np.uint16),
            "text": tokens.ids[0],
            "text_mask": tokens.mask[0],
            "caption_hash": np.zeros(2, np.uint32),
            "dropped": np.int32(0),
            "sample": hash_words(place.id),
            "epoch": np.int32(epoch),
        }

    def _clip(self, source: int, number: int) -> _Clip:
        key = (source, number)
        if key in self._kept:
            return self._kept[key]
        part = self._part
        record = read_record(part.stream.sources[source], number)
        captions = usable_captions(record)
        if part.resize:
            frames, trajectories = resized(record, part.model)
        else:
            check_frames(record, part.model)
            frames, trajectories = record.frames, record.trajectories
        clip = _Clip(record.id, captions, frames, trajectories)
        if len(self._kept) < self._cache:
            self._kept[key] = clip
        return clip


def _draw_caption(clip: _Clip, seed: int, epoch: int, words: np.ndarray) -> str:
    """By seed, epoch and record alone, wherever in whichever batch it is read."""
    rng = np.random.default_rng((_CAPTIONS, seed, epoch, *words.tolist()))
    return clip.captions[int(rng.integers(len(clip.captions)))]


def stack_samples(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One array of each; what is told of records stays as it is."""
    first = samples[0]
    return {
        name: tuple(sample[name] for sample in samples)
        if name in TOLD
        else np.stack([sample[name] for sample in samples])
        for name in first
    }


def _batches(part: Part, earlier: int, reading: ReadingSettings) -> _Batches:
    """The part's batches after `earlier` ones, read ahead by one batch and a bit."""
    positions = grain.MapDataset.range(earlier * part.size, sys.maxsize)
    plans = part.plans()
    # Samples are read ahead, not batches: all threads then work on the batch that is due next.
    ahead = -(-part.size // max(1, reading.workers))
    threads = reading.threads_here()
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(ahead, threads))
    own = Samples(part, reading.cache, plans)
    samples: Any = positions.map(own).to_iter_dataset(options)
    put_together: Any = stack_samples
    if reading.workers:
        _accept_flags()
        in_place = InPlace(part.size)
        put_together = in_place.take
        # Little waits in shared memory, and is copied out at once: it may be small, and what is in
        # it when this process is killed stays there.
        samples = samples.mp_prefetch(
            grain.MultiprocessingOptions(reading.workers, per_worker_buffer_size=2),
            worker_init_fn=_end_with_parent,
        ).map(in_place.put)
    stacked = samples.batch(part.size, drop_remainder=True, batch_fn=put_together)
    # A thread of its own copies samples together while the step runs.
    batches = iter(ThreadPrefetchIterDataset(stacked, prefetch_buffer_size=1))
    return _Batches(part, earlier, plans, batches)


class _Batches(Iterator[Loaded]):
    """The batches of a part, with the rows that were planned for them."""

    def __init__(self, part: Part, earlier: int, plans: StepPlans, arrays: Any):
        self._part, self._earlier, self._plans, self._arrays = part, earlier, plans, arrays
        arrays.start_prefetch()

    def __next__(self) -> Loaded:
        arrays = next(self._arrays)
        rows = self._plans(self._earlier).rows
        self._earlier += 1
        ids = arrays.pop("id")
        bad = tuple(one for one in arrays.pop("bad") if one is not None)
        own = None if rows is None else self._part.rows(rows)
        return Loaded(self._part.stream.settings.name, Batch(**arrays, rows=own), ids, bad)

    def close(self) -> None:
        """Ends threads and workers."""
        self._arrays.close()


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends a worker whose parent was killed: nobody else would."""
    parent = multiprocessing.parent_process()

    def wait() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _accept_flags() -> None:
    """Grain's workers read absl's flags, which only a program started by absl has parsed."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
