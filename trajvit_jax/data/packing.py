"""Which row of slots each video of a batch goes to: a plan made from token counts alone.

Token counts differ tenfold between videos, and a compiled step wants one shape. So a batch is
cut into groups of videos, and a group has rows of slots that its videos share. Videos are spread
over the rows of the whole batch so that rows fill evenly; a device owns whole groups, so the
plan, and with it what is dropped, is the same on any number of devices.
"""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np
from jaxtyping import Int, Int32, Int64

from trajvit_jax.config import require_positive
from trajvit_jax.models.tokens import Rows


@dataclasses.dataclass(frozen=True)
class PackingSettings:
    """The shape of a batch's rows.

    The defaults are for a hundred trajectories a video: on the counts of 80 Panda-70M clips whose
    labels were followed from their first frames (up to 364 a video) they use 90% and drop under
    0.04%. `python -m benchmarks.packing` shows what others use and drop; it takes records, too.

    Attributes:
      group: videos that share rows; what a device owns is made of whole groups.
      rows: rows of a group.
      slots: slots of a row: each video takes one for its CLS and one a token.

    Raises:
      ValueError: a count under 1, more rows than videos in a group, or fewer slots than a group
        has videos.
    """

    group: int = 8
    rows: int = 1
    slots: int = 896

    def __post_init__(self) -> None:
        require_positive(self, "group", "rows", "slots")
        if self.rows > self.group:
            raise ValueError(
                f"PackingSettings.rows: no video can use the last of {self.rows} rows "
                f"for {self.group} videos; lower rows"
            )
        most = np.iinfo(np.uint16).max
        if not self.group <= self.slots <= most:
            raise ValueError(
                f"PackingSettings.slots must be within {self.group}..{most}, at least one for the "
                f"CLS of each video of a group, got {self.slots}"
            )


@dataclasses.dataclass(frozen=True, eq=False)
class Plan:
    """Where each video of a batch goes. Everything but `order` is in the order of the step.

    Attributes:
      order: the videos of the batch in the order of the step: group after group, row after row.
      row: the row of each, counted within the step.
      start: the slot of its CLS.
      kept: trajectories that have slots.
      dropped: trajectories that have none.
    """

    order: Int64[np.ndarray, " b"]
    row: Int64[np.ndarray, " b"]
    start: Int64[np.ndarray, " b"]
    kept: Int64[np.ndarray, " b"]
    dropped: Int64[np.ndarray, " b"]


def plan(counts: Int[np.ndarray, " b"], settings: PackingSettings, *, each: int = 1) -> Plan:
    """Spreads a batch over its rows.

    The largest video first, each to the row with most room among the groups that still take one
    (longest-processing-time scheduling, Graham 1969). Where a row overflows, its largest video
    gives up trajectories until it is as small as the next, and so on.

    Args:
      counts: trajectories of each video.
      settings: of the rows.
      each: tokens, and so slots, that a trajectory takes.

    Raises:
      ValueError: a batch that groups do not divide, or a negative count.
    """
    b = len(counts)
    if b == 0 or b % settings.group:
        raise ValueError(f"a batch of {b} videos is not a multiple of groups of {settings.group}")
    counts = counts.astype(np.int64)
    if counts.min() < 0:
        raise ValueError(f"a video with {counts.min()} trajectories")
    row = _spread(counts * each + 1, settings)
    order = np.argsort(row, kind="stable")
    row, counts = row[order], counts[order]

    kept = counts.copy()
    demand = np.bincount(row, counts * each + 1)
    for full in np.flatnonzero(demand > settings.slots):
        own = np.flatnonzero(row == full)
        kept[own] = shorten(counts[own], (settings.slots - own.size) // each)
    end = np.cumsum(kept * each + 1)
    before = np.concatenate([[0], end[:-1]])
    # Slots are counted from the start of the row: what its first video has before it.
    _, first, videos = np.unique(row, return_index=True, return_counts=True)
    start = before - np.repeat(before[first], videos)
    return Plan(order, row, start, kept, counts - kept)


def _spread(sizes: Int64[np.ndarray, " b"], settings: PackingSettings) -> Int64[np.ndarray, " b"]:
    """The row of each video, the most room first, and among equals the first row."""
    groups = len(sizes) // settings.group
    left = [settings.group] * groups
    used = [(0, row) for row in range(groups * settings.rows)]  # in order, so it is a heap
    rows = np.zeros(len(sizes), np.int64)
    for video in np.argsort(-sizes, kind="stable").tolist():
        while not left[used[0][1] // settings.rows]:
            heapq.heappop(used)
        slots, row = used[0]
        heapq.heapreplace(used, (slots + int(sizes[video]), row))
        left[row // settings.rows] -= 1
        rows[video] = row
    return rows


def shorten(counts: Int[np.ndarray, " n"], room: int) -> Int64[np.ndarray, " n"]:
    """The most equal cut from above that fits: no video keeps more than a common limit.

    The limit is a whole number; what it leaves of the room goes, one each, to the first.

    Args:
      counts: trajectories of each of at least one video.
      room: how many of them fit together.

    Returns:
      How many of its trajectories each keeps: together `room`, or all if fewer.
    """
    counts = counts.astype(np.int64)
    low, high = 0, int(counts.max())
    while low < high:
        limit = (low + high + 1) // 2
        fits = np.minimum(counts, limit).sum() <= room
        low, high = (limit, high) if fits else (low, limit - 1)
    kept = np.minimum(counts, low)
    spare = np.flatnonzero(counts > low)[: room - int(kept.sum())]
    kept[spare] += 1
    return kept


def place(plan: Plan, settings: PackingSettings, *, each: int = 1) -> Rows:
    """The rows of a plan, as NumPy arrays; `each` as for the plan.

    Trajectory j (from 0) of a video that starts at slot s has slots `first_slots(s, ...)[j]` and
    the `each - 1` that follow.
    """
    g, v, s = len(plan.row) // settings.group, settings.group, settings.slots
    taken = plan.kept * each + 1
    # A row's videos follow each other from its first slot on.
    order = np.lexsort((plan.start, plan.row))
    end = np.bincount(plan.row, taken, minlength=g * settings.rows).astype(np.int64)
    used = np.arange(s) < end[:, None]
    video = np.zeros(used.shape, np.int32)
    video[used] = np.repeat(order.astype(np.int32) % v + 1, taken[order])
    used[plan.row, plan.start] = False  # no CLS: what is left are the tokens
    query = np.zeros(used.shape, np.int32)
    query[used] = np.tile(np.arange(1, each + 1, dtype=np.int32), plan.kept.sum())
    shape = (g, settings.rows, s)
    row = (plan.row % settings.rows).astype(np.int32).reshape(g, v)
    return Rows(video.reshape(shape), query.reshape(shape), row)


def first_slots(start: int, kept: int, *, each: int = 1) -> Int32[np.ndarray, " kept"]:
    """The first slot of each trajectory of a video whose CLS is at slot `start`."""
    return (start + 1 + each * np.arange(kept)).astype(np.int32)
