"""Which row of places each conversation of a batch goes to: a plan made from lengths alone.

A batch is cut into groups, and the conversations of a group share rows of one length. The plan
depends on nothing but lengths, so it is the same on any number of devices.
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
      group: conversations, and so videos, that stay together on a device.
      rows: rows of a group.
      length: tokens of a row.

    Raises:
      ValueError: a count under 1.
    """

    group: int = 8
    rows: int = 4
    length: int = 2048

    def __post_init__(self) -> None:
        require_positive(self, "group", "rows", "length")


@dataclasses.dataclass(frozen=True, eq=False)
class RowPlan:
    """Where each conversation of a batch goes; everything but `order` is in the step's order.

    Attributes:
      order: the conversations of the batch in the order of the step, group after group.
      row: the row of each, counted within the step; -1 = it found no place and is left out.
      kept: trajectories of its video that are read.
      dropped: trajectories that are not.
    """

    order: Int64[np.ndarray, " b"]
    row: Int64[np.ndarray, " b"]
    kept: Int64[np.ndarray, " b"]
    dropped: Int64[np.ndarray, " b"]


def plan_rows(
    fixed: Int[np.ndarray, " b"],
    trajectories: Int[np.ndarray, " b"],
    settings: RowSettings,
    *,
    each: int = 1,
    order: Int64[np.ndarray, " b"] | None = None,
) -> RowPlan:
    """Spreads conversations over rows, the longest first, each to the row with most room.

    What does not fit gives up trajectories, those of the largest video first, down to what the
    next has; a conversation whose text alone finds no room is left out.

    Args:
      fixed: tokens of each conversation that cannot be left out: text, CLS, patches.
      trajectories: of its video; zeros where tokens are no trajectories.
      settings: of the rows.
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
    sizes = (fixed + trajectories * each).astype(np.int64)
    if order is None:
        order = _balanced(sizes, b // settings.group)
    row, kept = np.full(b, -1, np.int64), np.zeros(b, np.int64)
    for group in range(b // settings.group):
        own = np.arange(group * settings.group, (group + 1) * settings.group)
        of = order[own]
        first = group * settings.rows
        row[own], kept[own] = _within(fixed[of], trajectories[of], settings, each, first)
    return RowPlan(order, row, kept, trajectories[order] - kept)


def _balanced(sizes: Int64[np.ndarray, " b"], groups: int) -> Int64[np.ndarray, " b"]:
    """The conversations by group: equally many in each, and about equally many tokens."""
    members: list[list[int]] = [[] for _ in range(groups)]
    used = np.zeros(groups, np.int64)
    most = len(sizes) // groups
    for number in np.argsort(-sizes, kind="stable").tolist():
        open_groups = [g for g in range(groups) if len(members[g]) < most]
        group = min(open_groups, key=lambda g: (used[g], g))
        members[group].append(number)
        used[group] += sizes[number]
    return np.array([number for group in members for number in sorted(group)], np.int64)


def _within(
    fixed: np.ndarray, trajectories: np.ndarray, settings: RowSettings, each: int, first: int
) -> tuple[np.ndarray, np.ndarray]:
    """Row and trajectories of each conversation of a group."""
    row, kept = np.full(len(fixed), -1, np.int64), np.zeros(len(fixed), np.int64)
    room = np.full(settings.rows, settings.length, np.int64)  # with all trajectories: may be < 0
    bare = room.copy()  # without any
    for number in np.argsort(-(fixed + trajectories * each), kind="stable").tolist():
        fits = np.flatnonzero(bare >= fixed[number])
        if not fits.size:
            continue
        best = int(fits[np.argmax(room[fits])])
        row[number] = first + best
        bare[best] -= fixed[number]
        room[best] -= fixed[number] + trajectories[number] * each
    for best in range(settings.rows):
        own = np.flatnonzero(row == first + best)
        if own.size:
            kept[own] = shorten(trajectories[own], int(bare[best]) // each)
    return row, kept
