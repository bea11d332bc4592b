"""Evaluation videos: every record once, in order, in batches of one shape."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Int32, UInt8

from trajvit_jax.data.eval_packing import plan_evaluation
from trajvit_jax.data.index import find_place, read_index
from trajvit_jax.data.packing import place
from trajvit_jax.data.samples import in_slots, resized, usable_captions
from trajvit_jax.data.source import Record
from trajvit_jax.data.streams import trajectory_counts
from trajvit_jax.data.unusable import BadRecord, UnusableRecord, read_record
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.models.tokens import Rows


@dataclasses.dataclass(frozen=True)
class EvalVideos:
    """Videos of one batch; those behind `count` are black, fill it up, and do not count.

    Attributes:
      video: pixels; black where a record cannot be used.
      labels: of the same; nothing there.
      rows: slots that they share, or None: a row each.
      kept: of each video, what `keep` says; None there.
      bad: what cannot be used, None where all is well.
    """

    video: UInt8[np.ndarray, "b t h w 3"]
    labels: Int32[np.ndarray, "b t y x"]
    rows: Rows | None
    kept: tuple[Any, ...]
    bad: tuple[BadRecord | None, ...]

    @property
    def count(self) -> int:
        """Records that were read."""
        return len(self.kept)


@dataclasses.dataclass(frozen=True)
class _Sample:
    video: UInt8[np.ndarray, "t h w 3"]
    labels: Int32[np.ndarray, "t y x"]
    kept: Any = None
    bad: BadRecord | None = None


def eval_videos(
    source: Sequence[Record],
    model: ModelSettings,
    batch: int,
    *,
    keep: Callable[[Record], Any] = usable_captions,
    group: int | None = None,
    threads: int = 4,
) -> Iterator[EvalVideos]:
    """Reads all records.

    Args:
      source: the records.
      model: whose sizes videos get.
      batch: videos at once.
      keep: what is wanted of a record besides its frames; raises UnusableRecord where that is
        not there.
      group: so many videos share rows, in which each has as many slots as it has tokens; the
        batch is a multiple of it. None = each has all slots of the model.
      threads: that read.

    Raises:
      OSError: the storage cannot be read.
    """
    most, each = model.trajvit.max_trajectories, model.trajvit.tokens_each
    plans, rows = None, itertools.repeat(None)
    if group:
        shape, plans = plan_evaluation(
            trajectory_counts(source), batch=batch, group=group, most=most, each=each
        )
        rows = (place(plan, shape, each=each) for plan in plans)
    index = functools.cache(lambda: read_index(source))  # for what goes wrong
    nothing = _Sample(
        np.zeros((model.frames, model.image_size, model.image_size, 3), np.uint8),
        np.zeros((model.frames, model.grid, model.grid), np.int32),
    )

    def slots(number: int) -> dict[str, int]:
        if plans is None:
            return {"most": most}
        plan, own = plans[number // batch], number % batch
        return {"most": int(plan.kept[own]), "start": int(plan.start[own]), "each": each}

    def load(number: int) -> _Sample:
        try:
            record = read_record(source, number)
            kept = keep(record)
            frames, trajectories = resized(record, model)
        except UnusableRecord as problem:
            where = find_place(source, index(), number)
            return dataclasses.replace(nothing, bad=BadRecord(where.id, where.file, str(problem)))
        labels, _ = in_slots(trajectories, **slots(number))
        return _Sample(frames, labels, kept)

    dataset = grain.MapDataset.range(len(source)).map(load)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=batch)
    samples: Iterator[Any] = iter(dataset.to_iter_dataset(options))
    for own in rows:
        read = list(itertools.islice(samples, batch))
        if not read:
            return
        full = read + [nothing] * (batch - len(read))
        yield EvalVideos(
            video=np.stack([sample.video for sample in full]),
            labels=np.stack([sample.labels for sample in full]),
            rows=own,
            kept=tuple(sample.kept for sample in read),
            bad=tuple(sample.bad for sample in read),
        )
