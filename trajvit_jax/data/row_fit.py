"""Whether rows of slots fit the videos that share them: how much is used, and what would be better.

Tokenizers differ in how many trajectories they make of a video, and so in how many slots a group
of videos needs: too few drop trajectories, too many make every step longer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from trajvit_jax.data.packing import PackingSettings, plan
from trajvit_jax.data.schedule import StreamSettings

DROPPED = 0.001  # the share of trajectories that a good fit drops at most
STEP = 16  # slots between the shapes that are tried
_POOR_USE, _POOR_DROPPED = 0.75, 0.01  # of a fit that is told of


@dataclasses.dataclass(frozen=True)
class RowFit:
    """What rows make of batches.

    Attributes:
      packing: the rows.
      used: share of their slots that hold a CLS or a token.
      dropped: share of the trajectories that have no slot.
      worst: the same of the batch that drops most.
    """

    packing: PackingSettings
    used: float
    dropped: float
    worst: float


def fit(
    batches: Sequence[Int64[np.ndarray, " b"]], packing: PackingSettings, *, each: int = 1
) -> RowFit:
    """How rows would fit.

    Args:
      batches: trajectories of each video of each batch.
      packing: the rows.
      each: tokens, and so slots, of a trajectory.

    Raises:
      ValueError: a batch that groups do not divide.
    """
    plans = [plan(counts, packing, each=each) for counts in batches]
    kept = np.array([own.kept.sum() for own in plans])
    dropped = np.array([own.dropped.sum() for own in plans])
    videos = sum(len(counts) for counts in batches)
    slots = videos // packing.group * packing.rows * packing.slots
    return RowFit(
        packing,
        float((kept.sum() * each + videos) / slots),
        float(dropped.sum() / max(1, (kept + dropped).sum())),
        float((dropped / np.maximum(1, kept + dropped)).max()),
    )


def sizes_to_try(
    batches: Sequence[Int64[np.ndarray, " b"]], packing: PackingSettings, *, each: int = 1
) -> list[PackingSettings]:
    """Rows of which 96% to 82% would be used if nothing were dropped; arguments as of `fit`."""
    full = (np.concatenate(batches).mean() * each + 1) * packing.group / packing.rows
    first, last = (int(full / use) // STEP * STEP for use in (0.96, 0.82))
    return [
        dataclasses.replace(packing, slots=slots)
        for slots in range(max(first, packing.group), max(last, packing.group) + 1, STEP)
    ]


def best(tried: Sequence[RowFit]) -> RowFit:
    """The most used that drops under 0.1%; where all drop more, the one that drops least."""
    good = [one for one in tried if one.dropped < DROPPED]
    return max(good, key=lambda one: one.used) if good else min(tried, key=lambda one: one.dropped)


def advice(
    stream: StreamSettings, batches: Sequence[Int64[np.ndarray, " b"]], *, each: int = 1
) -> str | None:
    """What to tell of a stream whose rows fit its videos badly: which number of slots is better.

    Args:
      stream: whose videos share rows, or None is returned.
      batches: trajectories of each video in some of its batches.
      each: as for `fit`.

    Returns:
      None where at least 75% of the slots are used and at most 1% of the trajectories dropped, or
      where no number of slots is better.
    """
    if stream.packing is None:
        return None
    own = fit(batches, stream.packing, each=each)
    if own.used >= _POOR_USE and own.dropped <= _POOR_DROPPED:
        return None
    sizes = sizes_to_try(batches, own.packing, each=each)
    better = best([fit(batches, one, each=each) for one in sizes])
    if better.dropped > own.dropped and better.dropped >= DROPPED:
        return None
    # The argument of the configs of the paper's runs, in which images may have rows of their own.
    argument = "image_slots" if stream.name == "image" else "slots"
    return (
        f"stream {stream.name!r}: rows of {own.packing.slots} slots do not fit these records: "
        f"{own.used:.0%} of the slots would be used and {own.dropped:.1%} of the trajectories "
        f"that the model takes dropped; with {argument}={better.packing.slots} {better.used:.0%} "
        f"and {better.dropped:.2%}"
    )
