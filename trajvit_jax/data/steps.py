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
from trajvit_jax.config import require_positive
from trajvit_jax.data.batch import Batch
from trajvit_jax.data.samples import caption_hash, check_frames, hash_words, in_slots, resized
from trajvit_jax.data.schedule import Schedule
from trajvit_jax.data.streams import StepPlans, Stream
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows

# Sets the draws of captions apart from others that come from the same seed.
_CAPTIONS = 0x63617074


@dataclasses.dataclass(frozen=True)
class ReadingSettings:
    """How records are read; nothing of it changes what is read.

    Attributes:
      threads: readers and decoders, in each worker where there are any, for each stream.
      workers: processes that read, for each stream; 0 = threads of this one. They help where
        Python itself, not decoding, is what takes long: many small images. What they read
        travels through shared memory (/dev/shm).
      cache: videos of each stream that stay in memory, of each worker where there are any.

    Raises:
      ValueError: no thread, or a count under 0.
    """

    threads: int = 4
    workers: int = 0
    cache: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "threads")
        for name in ("workers", "cache"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")


@dataclasses.dataclass(frozen=True, eq=False)
class Loaded:
    """What a process reads for a step.

    Attributes:
      stream: name of the stream that the step belongs to.
      batch: this process's part of the batch: whole groups, as NumPy arrays.
      ids: of its records.
    """

    stream: str
    batch: Batch
    ids: tuple[str, ...]


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

    What a step reads, and what is drawn for it, depends on the seed and the step alone.

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
      ValueError: a batch that the processes cannot share, records that do not fit the model, or
        (when it is read) a record without captions.
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
        stream.check(model)
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

    def __init__(self, part: Part, cache: int = 0):
        """Args: the part, and how many of its videos stay in memory."""
        self._part, self._cache, self._plans = part, cache, part.plans()
        self._kept: dict[tuple[int, int], _Clip] = {}

    def __call__(self, position: int) -> dict[str, Any]:
        """What `Batch` holds of a video, without `rows`, and its `id`."""
        part = self._part
        earlier, place = divmod(position, part.size)
        planned = self._plans(earlier)
        place += part.process * part.size
        source, record, epoch = (int(of_all[place]) for of_all in planned.reads)
        clip = self._clip(source, record)
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
            "video": clip.frames,
            "labels": labels,
            "text": tokens.ids[0],
            "text_mask": tokens.mask[0],
            "caption_hash": caption_hash(caption),
            "dropped": np.int32(dropped),
            "sample": words,
            "epoch": np.int32(epoch),
        }

    def _clip(self, source: int, number: int) -> _Clip:
        key = (source, number)
        if key in self._kept:
            return self._kept[key]
        part = self._part
        record = part.stream.sources[source][number]
        if part.resize:
            frames, trajectories = resized(record, part.model)
        else:
            check_frames(record, part.model)
            frames, trajectories = record.frames, record.trajectories
        clip = _Clip(record.id, record.captions, frames, trajectories)
        if len(self._kept) < self._cache:
            self._kept[key] = clip
        return clip


def _draw_caption(clip: _Clip, seed: int, epoch: int, words: np.ndarray) -> str:
    """By seed, epoch and record alone, wherever in whichever batch it is read."""
    if not clip.captions:
        raise ValueError(
            f"record {clip.id!r} has no caption to train with; add "
            "'captions' to its manifest line and extract again"
        )
    rng = np.random.default_rng((_CAPTIONS, seed, epoch, *words.tolist()))
    return clip.captions[int(rng.integers(len(clip.captions)))]


def stack_samples(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One array of each; ids stay as they are."""
    first = samples[0]
    return {
        name: tuple(sample[name] for sample in samples)
        if name == "id"
        else np.stack([sample[name] for sample in samples])
        for name in first
    }


def _batches(part: Part, earlier: int, reading: ReadingSettings) -> _Batches:
    """The part's batches after `earlier` ones, read ahead by one batch and a bit."""
    positions = grain.MapDataset.range(earlier * part.size, sys.maxsize)
    # Samples are read ahead, not batches: all threads then work on the batch that is due next.
    ahead = -(-part.size // max(1, reading.workers))
    options = grain.ReadOptions(
        num_threads=reading.threads, prefetch_buffer_size=max(ahead, reading.threads)
    )
    samples: Any = positions.map(Samples(part, reading.cache)).to_iter_dataset(options)
    if reading.workers:
        _accept_flags()
        # Little waits in shared memory, and is copied out at once: it may be small, and what is in
        # it when this process is killed stays there.
        samples = samples.mp_prefetch(
            grain.MultiprocessingOptions(reading.workers, per_worker_buffer_size=2),
            worker_init_fn=_end_with_parent,
        ).map(_copied)
    stacked = samples.batch(part.size, drop_remainder=True, batch_fn=stack_samples)
    # A thread of its own copies samples together while the step runs.
    return _Batches(part, earlier, iter(ThreadPrefetchIterDataset(stacked, prefetch_buffer_size=1)))


class _Batches(Iterator[Loaded]):
    """The batches of a part, with the rows that were planned for them."""

    def __init__(self, part: Part, earlier: int, arrays: Any):
        self._part, self._earlier, self._arrays = part, earlier, arrays
        self._plans = part.plans()
        arrays.start_prefetch()

    def __next__(self) -> Loaded:
        arrays = next(self._arrays)
        rows = self._plans(self._earlier).rows
        self._earlier += 1
        ids = arrays.pop("id")
        own = None if rows is None else self._part.rows(rows)
        return Loaded(self._part.stream.settings.name, Batch(**arrays, rows=own), ids)

    def close(self) -> None:
        """Ends threads and workers."""
        self._arrays.close()


def _copied(sample: dict[str, Any]) -> dict[str, Any]:
    arrays = {name: np.array(value) for name, value in sample.items() if name != "id"}
    return {"id": sample["id"]} | arrays


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
