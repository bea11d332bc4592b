"""Which row of places each conversation of a batch goes to: a plan made from lengths alone.

A batch is cut into groups. The conversations of a group share rows of one length, and places for
their videos in the encoder. The plan depends on nothing but lengths and numbers of videos, so it is
the same on any number of devices.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from jaxtyping import Int, Int64

from trajvit_jax.config import require_positive
from trajvit_jax.data.packing import shorten


@dataclasses.dataclass(frozen=True)
class RowSettings:
    """The shape of a batch's rows.

    Attributes:
      group: conversations that stay together on a device.
      rows: rows of a group.
      length: tokens of a row.
      media: videos and images of a group's conversations, of which one may have as many; 0 = one a
        conversation. The encoder reads so many whether or not they are there.

    Raises:
      ValueError: a count under 1, or fewer videos than conversations.
    """

    group: int = 8
    rows: int = 4
    length: int = 2048
    media: int = 0

    def __post_init__(self) -> None:
        require_positive(self, "group", "rows", "length")
        if self.media and self.media < self.group:
            raise ValueError(
                f"rows.media={self.media} is less than rows.group={self.group}: a conversation has "
                "a place for a video; set it to 0 for one each"
            )

    @property
    def places(self) -> int:
        """For the videos of a group."""
        return self.media or self.group

    @property
    def most_videos(self) -> int:
        """Of a conversation."""
        return self.media or 1


@dataclasses.dataclass(frozen=True, eq=False)
class RowPlan:
    """Where each conversation of a batch goes; everything but `order` is in the step's order.

    Attributes:
      order: the conversations of the batch in the order of the step, group after group.
      row: the row of each, counted within the step; -1 = it found no place and is left out.
      place: of each of its videos among those of the group; -1 = it has none.
      kept: trajectories of its videos that are read.
      dropped: trajectories that are not.
    """

    order: Int64[np.ndarray, " b"]
    row: Int64[np.ndarray, " b"]
    place: Int64[np.ndarray, "b m"]
    kept: Int64[np.ndarray, "b m"]
    dropped: Int64[np.ndarray, "b m"]


def plan_rows(
    fixed: Int[np.ndarray, " b"],
    trajectories: Int[np.ndarray, "b m"],
    settings: RowSettings,
    *,
    videos: Int[np.ndarray, " b"] | None = None,
    each: int = 1,
    order: Int64[np.ndarray, " b"] | None = None,
) -> RowPlan:
    """Spreads conversations over rows, the longest first, each to the row with most room.

    What does not fit gives up trajectories, those of the largest video first, down to what the
    next has; a conversation whose text alone finds no room, or its videos no places, is left out.
    The first video of a conversation has the place of the conversation itself, others those of
    conversations without one, and then those beyond.

    Args:
      fixed: tokens of each conversation that cannot be left out: text, CLS, patches.
      trajectories: of its videos; zeros where tokens are no trajectories, and behind the last.
      settings: of the rows.
      videos: how many each has; None = one.
      each: tokens of a trajectory.
      order: the conversations by group, where groups are given; None = they are balanced.

    Raises:
      ValueError: a batch that groups do not divide.
    """
    b = len(fixed)
    if b == 0 or b % settings.group:
        raise ValueError(
            f"a batch of {b} conversations is not a multiple of groups of {settings.group}"
        )
    videos = np.ones(b, np.int64) if videos is None else videos
    sizes = (fixed + trajectories.sum(1) * each).astype(np.int64)
    if order is None:
        order = _balanced(sizes, videos, b // settings.group, settings.places)
    row, kept = np.full(b, -1, np.int64), np.zeros(trajectories.shape, np.int64)
    place = np.full_like(kept, -1)
    for group in range(b // settings.group):
        own = np.arange(group * settings.group, (group + 1) * settings.group)
        of = order[own]
        place[own] = _places(videos[of], trajectories.shape[1], settings.places)
        seen = (place[own] >= 0).sum(1) == videos[of]
        first = group * settings.rows
        row[own], kept[own] = _within(fixed[of], trajectories[of], seen, settings, each, first)
    return RowPlan(order, row, place, kept, trajectories[order] - kept)


def _balanced(
    sizes: Int64[np.ndarray, " b"], videos: Int[np.ndarray, " b"], groups: int, places: int
) -> Int64[np.ndarray, " b"]:
    """The conversations by group: equally many in each, and about equally many tokens.

    Those with several videos choose first; one that finds no places for all of its videos is a
    member of its group all the same.
    """
    members: list[list[int]] = [[] for _ in range(groups)]
    used, seen = np.zeros((2, groups), np.int64)
    most = len(sizes) // groups
    for number in np.lexsort((-sizes, -np.maximum(videos, 1))).tolist():
        open_groups = [g for g in range(groups) if len(members[g]) < most]
        roomy = [g for g in open_groups if seen[g] + videos[number] <= places]
        group = min(roomy or open_groups, key=lambda g: (used[g], g))
        members[group].append(number)
        used[group] += sizes[number]
        seen[group] += videos[number] if roomy else 0
    return np.array([number for group in members for number in sorted(group)], np.int64)


def _places(videos: Int[np.ndarray, " g"], most: int, places: int) -> Int64[np.ndarray, "g m"]:
    """The places of each conversation's videos; of one that finds too few, none at all."""
    found = np.full((len(videos), most), -1, np.int64)
    # The fewest videos first: all that have one have their own place.
    free = set(range(places)) - set(np.flatnonzero(videos).tolist())
    for number in np.argsort(videos, kind="stable").tolist():
        more = int(videos[number]) - 1
        if more < 0:
            continue
        if more <= len(free):
            others = sorted(free)[:more]
            free -= set(others)
            found[number, : more + 1] = [number, *others]
        else:
            free.add(number)
    return found


def _within(
    fixed: np.ndarray,
    trajectories: np.ndarray,
    seen: np.ndarray,
    settings: RowSettings,
    each: int,
    first: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Row and trajectories of each conversation of a group; those that are not `seen` get none."""
    row, kept = np.full(len(fixed), -1, np.int64), np.zeros_like(trajectories)
    room = np.full(settings.rows, settings.length, np.int64)  # with all trajectories: may be < 0
    bare = room.copy()  # without any
    sizes = fixed + trajectories.sum(1) * each
    for number in np.argsort(-sizes, kind="stable").tolist():
        fits = np.flatnonzero(bare >= fixed[number])
        if not fits.size or not seen[number]:
            continue
        best = int(fits[np.argmax(room[fits])])
        row[number] = first + best
        bare[best] -= fixed[number]
        room[best] -= sizes[number]
    for best in range(settings.rows):
        own = np.flatnonzero(row == first + best)
        if own.size:
            counts = shorten(trajectories[own].reshape(-1), int(bare[best]) // each)
            kept[own] = counts.reshape(len(own), -1)
    return row, kept
