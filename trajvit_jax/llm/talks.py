"""What training reads of conversations, step by step.

The position in the data is one number, the step, as in `trajvit_jax.data.steps`.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from grain.experimental import ThreadPrefetchIterDataset
from jaxtyping import Int32, Integer, UInt8

from trajvit_jax.data.index import find_place, read_index
from trajvit_jax.data.samples import Sized, in_slots, resized
from trajvit_jax.data.schedule import reads
from trajvit_jax.data.source import Record
from trajvit_jax.data.unusable import BadRecord, UnusableRecord, read_record
from trajvit_jax.llm.sequences import Spread, rows_of, spread
from trajvit_jax.llm.step import Talks
from trajvit_jax.llm.talk_source import NOTHING, TalkPlan, TalkSource, plan_talks
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedTalks:
    """What a process reads for a step, as `data.steps.Loaded`."""

    stream: str
    batch: Talks
    ids: tuple[str, ...]
    bad: tuple[BadRecord, ...] = ()


@dataclasses.dataclass(frozen=True, eq=False)
class _Medium:
    """A video or image of a conversation.

    Attributes:
      place: among those of its group; -1 = there is none.
      video: pixels.
      labels: of its cells.
      tokens: their numbers in the group, see `Sequences.source`.
    """

    place: int
    video: UInt8[np.ndarray, "t h w 3"]
    labels: Integer[np.ndarray, "t y x"]
    tokens: Int32[np.ndarray, " n"]


class _Samples:
    """Position in the data -> one conversation; positions count this process's."""

    def __init__(
        self,
        source: TalkSource,
        plans: Callable[[int], TalkPlan],
        size: int,
        process: int,
        cache: int,
    ):
        self._source, self._plans, self._size, self._process = source, plans, size, process
        self._cache, self._videos = cache, dict[int, Sized]()

    def __call__(self, position: int) -> dict[str, Any]:
        earlier, own = divmod(position, self._size)
        at = own + self._process * self._size
        planned, source = self._plans(earlier), self._source
        number = int(planned.number[at])
        if number == NOTHING:
            return self._sample(id="")
        media, bad = [], []
        for of, record in enumerate(source.record[number].tolist()):
            if record < 0:
                continue
            try:
                media.append(self._medium(planned, at, of, record))
            except UnusableRecord as problem:
                where = find_place(source.records, read_index(source.records), record)
                bad.append(BadRecord(where.id, where.file, str(problem)))
        spoken: Spread | None = None
        if not bad and planned.row[at] >= 0:
            name = f"conversation {source.talks[number].id!r}"
            spoken = spread(source.encoded(number), [one.tokens for one in media], name=name)
        return self._sample(
            id=source.talks[number].id,
            bad=bad,
            media=[one for one in media if not bad and one.place >= 0],
            dropped=np.int32(planned.dropped[at]),
            spread=spoken,
            unplaced=not bad and spoken is None,
        )

    def _medium(self, planned: TalkPlan, at: int, of: int, record: int) -> _Medium:
        """A conversation's video or image, in the slots that it is planned for."""
        reader = self._source.reader
        video, trajectories = self._video(record)
        kept, start = min(int(planned.kept[at, of]), len(trajectories)), int(planned.start[at, of])
        packed = planned.rows is not None
        labels, _ = in_slots(
            trajectories,
            kept if reader.follows else reader.video.trajvit.max_trajectories,
            start=start % reader.row_slots if packed else 0,
            each=reader.each if packed else 1,
        )
        tokens = reader.tokens(kept, start=start)
        return _Medium(int(planned.place[at, of]), video, labels, tokens)

    def _video(self, record: int) -> Sized:
        if record in self._videos:
            return self._videos[record]
        source = self._source
        found, settings = read_record(source.records, record), source.reader.video
        is_image = len(found.frames) == 1
        video = still(found, settings) if is_image else resized(found, settings)
        if len(self._videos) < self._cache:
            self._videos[record] = video
        return video

    def _sample(self, **found: Any) -> dict[str, Any]:
        empty = {"bad": [], "media": [], "dropped": np.int32(0)}
        return empty | {"spread": None, "unplaced": False} | found


def still(image: Record, settings: ModelSettings) -> Sized:
    """An image among videos, as arrays of as many frames.

    TrajViT's trajectories are seen in the first frame alone, so that its tokens are those of one
    frame, as whoever asks about an image later has them. For other models it stands still.
    """
    frames = settings.frames
    pixels, trajectories = resized(image, dataclasses.replace(settings, frames=1))
    labels = np.repeat(trajectories.labels, frames, axis=0)
    if settings.name == "trajvit":
        labels[1:] = 0
    shown = dataclasses.replace(
        trajectories,
        labels=labels,
        frame_times=np.repeat(trajectories.frame_times, frames),
        key_frames=np.arange(frames) == 0,
    )
    return np.repeat(pixels, frames, axis=0), shown


def talk_steps(
    source: TalkSource,
    batch: int,
    *,
    seed: int,
    start: int = 0,
    process: int = 0,
    processes: int = 1,
    threads: int = 4,
    cache: int = 0,
    stream: str = "talks",
    ordered: bool = False,
) -> Iterator[LoadedTalks]:
    """Endless steps from `start` on; each epoch has another order.

    Args:
      source: the conversations.
      batch: conversations a step, of all processes together.
      seed: of the run.
      start: the first step.
      process: which part of each batch is read.
      processes: parts of a batch.
      threads: that read and decode.
      cache: videos that stay in memory, at the size at which they are read.
      stream: what logs call it.
      ordered: for evaluation: each conversation once, in the file's own order, and then none:
        places of the last batch stay empty.

    Raises:
      ValueError: fewer conversations than a batch, or one that processes cannot share.
      OSError: the storage cannot be read (when a step is).
    """
    group = source.reader.rows.group
    if batch % (group * processes) or (len(source) < batch and not ordered):
        raise ValueError(
            f"{len(source)} conversations, {batch} a step, cannot be read in groups of {group} by "
            f"{processes} processes: take a batch that is a multiple of {group * processes} and "
            "no more than there are"
        )

    @functools.lru_cache(maxsize=8)
    def plans(earlier: int) -> TalkPlan:
        if ordered:
            places = np.arange(earlier * batch, (earlier + 1) * batch)
            return plan_talks(source, np.where(places < len(source), places, NOTHING))
        return plan_talks(source, reads((batch,), (len(source),), earlier, seed=seed).record)

    size = batch // processes
    positions = grain.MapDataset.range(start * size, sys.maxsize)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(size, threads))
    samples: Any = positions.map(_Samples(source, plans, size, process, cache)).to_iter_dataset(
        options
    )
    stacked = samples.batch(size, drop_remainder=True, batch_fn=list)
    batches = iter(ThreadPrefetchIterDataset(stacked, prefetch_buffer_size=1))
    return _Steps(source, plans, batches, start, process, processes, stream)


class _Steps(Iterator[LoadedTalks]):
    """Batches, laid into rows."""

    def __init__(
        self,
        source: TalkSource,
        plans: Callable[[int], TalkPlan],
        batches: Any,
        earlier: int,
        process: int,
        processes: int,
        stream: str,
    ):
        self._source, self._plans, self._batches = source, plans, batches
        self._earlier, self._process, self._processes = earlier, process, processes
        self._stream = stream

    def __next__(self) -> LoadedTalks:
        samples = next(self._batches)
        planned, rows = self._plans(self._earlier), self._source.reader.rows
        self._earlier += 1
        size, groups = len(samples), len(samples) // rows.group
        first = self._process * groups * rows.rows
        laid: list[list[Spread]] = [[] for _ in range(groups * rows.rows)]
        own = planned.row[self._process * size : (self._process + 1) * size]
        for sample, row in zip(samples, own.tolist(), strict=True):
            if sample["spread"] is not None:
                laid[row - first].append(sample["spread"])
        encoder = planned.rows
        if encoder is not None:
            part = slice(self._process * groups, (self._process + 1) * groups)
            encoder = Rows(encoder.video[part], encoder.query[part], encoder.row[part])
        video, labels = self._media([sample["media"] for sample in samples])
        talks = Talks(
            video=video,
            labels=labels,
            sequences=rows_of(laid, rows.length),
            dropped=np.stack([sample["dropped"] for sample in samples]),
            present=np.array([not sample["bad"] for sample in samples]),
            unplaced=np.array([sample["unplaced"] for sample in samples]),
            rows=encoder,
        )
        ids = tuple(sample["id"] for sample in samples)
        bad = tuple(one for sample in samples for one in sample["bad"])
        return LoadedTalks(self._stream, talks, ids, bad)

    def _media(self, media: list[list[_Medium]]) -> tuple[np.ndarray, np.ndarray]:
        """Pixels and labels of all places of the groups; black where there is no video."""
        reader = self._source.reader
        own, rows = reader.video, reader.rows
        count = len(media) // rows.group * rows.places
        video = np.zeros((count, own.frames, own.image_size, own.image_size, 3), np.uint8)
        labels = np.zeros((count, own.frames, own.grid, own.grid), np.int32)
        for number, one in ((n, one) for n, found in enumerate(media) for one in found):
            at = number // rows.group * rows.places + one.place
            video[at], labels[at] = one.video, one.labels
        return video, labels

    def close(self) -> None:
        """Ends the threads."""
        self._batches.close()
