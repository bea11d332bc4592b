"""Which records a step reads: a pure function of the seed and the number of the step.

Nothing here knows of processes, workers or devices, and nothing is counted up from step 0: the
millionth step is found as quickly as the first.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int64

from trajvit_jax.config import require_positive
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.shuffle import places_in_order

# Up to so many records a whole order is drawn at once (about 1 ms); above, only the places that
# are asked for, by a cipher, which walks long where there are fewer numbers than it has.
_SMALL = 1 << 16


@dataclasses.dataclass(frozen=True)
class SourceSettings:
    """A folder of records and how much of a batch comes from it.

    Attributes:
      path: the folder.
      split: its split to train on.
      weight: its share of each batch, against the stream's other sources; 0 = the number of its
        records, then of all sources of the stream.

    Raises:
      ValueError: a weight under 0.
    """

    path: str
    split: str = "train"
    weight: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.weight < math.inf:
            raise ValueError(f"the weight of {self.path!r} must be a number >= 0: {self.weight}")


@dataclasses.dataclass(frozen=True)
class StreamSettings:
    """Steps of one shape: videos of so many frames, so many a step.

    Attributes:
      name: what logs call it.
      frames: of each record.
      batch: videos a step, of all processes together.
      sources: where they come from, mixed within each step.
      weight: how many steps of a round are of this stream; a round is as long as the weights of
        all streams together, and spreads each evenly.
      packing: rows that videos share; None = one video a row.

    Raises:
      ValueError: a count under 1, no source, or a batch that its groups do not divide.
    """

    name: str = "video"
    frames: int = 16
    batch: int = 256
    sources: tuple[SourceSettings, ...] = ()
    weight: int = 1
    packing: PackingSettings | None = None

    def __post_init__(self) -> None:
        require_positive(self, "frames", "batch", "weight")
        if not self.sources:
            raise ValueError(f"stream {self.name!r} has no sources; name a folder of records")
        weighted = [source.weight > 0 for source in self.sources]
        if any(weighted) != all(weighted):
            raise ValueError(
                f"stream {self.name!r}: give all of its sources a weight, or none "
                f"({', '.join(f'{source.path}: {source.weight:g}' for source in self.sources)})"
            )
        if self.batch % self.group:
            raise ValueError(
                f"stream {self.name!r}: a batch of {self.batch} videos is not a multiple of "
                f"groups of {self.group}"
            )

    @property
    def group(self) -> int:
        """Videos that stay together on a device."""
        return self.packing.group if self.packing else 1


class Turn(NamedTuple):
    """One step among those of its stream.

    Attributes:
      stream: its number.
      earlier: steps of that stream before this one.
    """

    stream: int
    earlier: int


class Schedule:
    """Which stream each step belongs to: rounds, in which each stream is spread evenly."""

    def __init__(self, weights: Sequence[int]):
        """Args: how many steps of a round each stream has.

        Raises:
          ValueError: no stream, a weight under 1, or a round of over 100,000 steps.
        """
        if not weights or min(weights) < 1 or sum(weights) > 100_000:
            raise ValueError(
                f"streams need weights >= 1 that add up to at most 100,000, got {list(weights)}"
            )
        divisor = math.gcd(*weights)
        self._round = _interleave([weight // divisor for weight in weights])
        own = self._round[:, None] == np.arange(len(weights))
        self._earlier = np.concatenate([np.zeros((1, len(weights)), int), np.cumsum(own, axis=0)])

    def turn(self, step: int) -> Turn:
        """Whose turn a step is; steps count from 0."""
        stream = int(self._round[step % len(self._round)])
        return Turn(stream, self.earlier(step, stream))

    def earlier(self, step: int, stream: int) -> int:
        """How many steps before `step` are of `stream`."""
        rounds, rest = divmod(step, len(self._round))
        return rounds * int(self._earlier[-1, stream]) + int(self._earlier[rest, stream])


def _interleave(counts: Sequence[int]) -> Int64[np.ndarray, " n"]:
    """Each number i `counts[i]` times, all spread evenly."""
    numbers = np.repeat(np.arange(len(counts)), counts)
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return numbers[np.argsort(places, kind="stable")].astype(np.int64)


def shares(weights: Sequence[int | float], batch: int) -> tuple[int, ...]:
    """Of a batch, how many come from each source: the same in every batch.

    Weights are met up to 1 / batch (largest remainders), so that no batch is by chance without
    a source, and an epoch of each source is a whole number of batches.

    Raises:
      ValueError: a source that would give less than one; the message has its number.
    """
    exact = [weight / math.fsum(weights) * batch for weight in weights]
    counts = [int(share) for share in exact]
    by_rest = sorted(range(len(exact)), key=lambda i: (counts[i] - exact[i], i))
    for i in itertools.islice(by_rest, batch - sum(counts)):
        counts[i] += 1
    if min(counts) < 1:
        small = counts.index(min(counts))
        raise ValueError(
            f"source {small} has {exact[small]:.2g} of a batch of {batch}, less than one video; "
            "raise its weight or the batch, or leave it out"
        )
    return tuple(counts)


class Reads(NamedTuple):
    """What a step reads; one entry a video.

    Attributes:
      source: its number.
      record: the number of the record within it.
      epoch: how often that source was read before.
    """

    source: Int64[np.ndarray, " b"]
    record: Int64[np.ndarray, " b"]
    epoch: Int64[np.ndarray, " b"]


def reads(
    shares: Sequence[int], lengths: Sequence[int], earlier: int, *, seed: int, stream: int = 0
) -> Reads:
    """The records of a stream's step, sources taking turns.

    Every epoch of a source is another order of its records. An epoch ends with its last full
    batch, so that no batch has a record twice; which records are left over differs by epoch.

    Args:
      shares: videos of a batch that each source gives.
      lengths: records that each source has, no fewer.
      earlier: the stream's steps before this one.
      seed: of the run.
      stream: its number; streams over the same source have different orders.
    """
    source = _interleave(shares)
    record, epochs = np.zeros((2, len(source)), np.int64)
    for number, (count, length) in enumerate(zip(shares, lengths, strict=True)):
        epoch, batch = divmod(earlier, length // count)
        places = range(batch * count, (batch + 1) * count)
        record[source == number] = _shuffled(length, places, (seed, stream, number, epoch))
        epochs[source == number] = epoch
    return Reads(source, record, epochs)


def _shuffled(length: int, places: range, entropy: tuple[int, ...]) -> Int64[np.ndarray, " n"]:
    """What stands at some places of a random order of 0..length-1."""
    if length <= _SMALL:
        return np.random.default_rng(entropy).permutation(length)[places.start : places.stop]
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    return places_in_order(np.arange(places.start, places.stop), length, seed)
