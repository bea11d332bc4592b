"""Rows for an evaluation: nothing is dropped, and all batches have one shape.

Training plans rows of a fixed size, and drops what does not fit. An evaluation reads every video
once, in order, and knows all token counts beforehand: its rows are as long as the largest video,
and as many as the fullest group needs.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int, Int64

from trajvit_jax.data.packing import PackingSettings, Plan


def plan_evaluation(
    counts: Int[np.ndarray, " n"], *, batch: int, group: int, most: int, each: int = 1
) -> tuple[PackingSettings, list[Plan]]:
    """The shape of the rows, and a plan for each batch of videos in the order of the records.

    Rows are filled first-fit decreasing (Johnson 1973), group by group.

    Args:
      counts: trajectories of each record.
      batch: videos of a batch; the last is filled up with videos without trajectories.
      group: videos that share rows.
      most: trajectories of a video that the model reads.
      each: tokens, and so slots, of a trajectory.

    Raises:
      ValueError: no records, or a batch that groups do not divide.
    """
    if not len(counts) or batch % group:
        raise ValueError(f"{len(counts)} videos in batches of {batch}, groups of {group}")
    batches = -(-len(counts) // batch)
    kept = np.zeros(batches * batch, np.int64)
    kept[: len(counts)] = np.minimum(counts, most)
    sizes = (kept * each + 1).reshape(-1, group)
    slots = max(int(sizes.max()), group)
    placed = [_first_fit(own, slots) for own in sizes]
    rows = max(int(row.max()) + 1 for row, _ in placed)
    row = np.stack(
        [row + rows * (number % (batch // group)) for number, (row, _) in enumerate(placed)]
    )
    start = np.stack([start for _, start in placed])
    order = np.arange(batch)
    plans = [
        Plan(order, *of_batch, np.zeros(batch, np.int64))
        for of_batch in zip(*(x.reshape(batches, batch) for x in (row, start, kept)), strict=True)
    ]
    return PackingSettings(group, rows, slots), plans


def _first_fit(
    sizes: Int64[np.ndarray, " v"], slots: int
) -> tuple[Int64[np.ndarray, " v"], Int64[np.ndarray, " v"]]:
    """Row and first slot of each video of a group."""
    row, start = np.zeros((2, len(sizes)), np.int64)
    used: list[int] = []
    for video in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[video])
        fits = next((one for one, taken in enumerate(used) if taken + size <= slots), len(used))
        if fits == len(used):
            used.append(0)
        row[video], start[video] = fits, used[fits]
        used[fits] += size
    return row, start
