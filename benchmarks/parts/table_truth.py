"""Trajectories of the world that are known, and ones that are spoilt on purpose: how wrong each is.

The truth has a label a visible object, and one for the background of each shot.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt16

from benchmarks.parts.tracking_metrics import identity_switches, overlaps, tube_ious
from tokenization.manifest import Entry
from tokenization.trajectories import Trajectories
from tokenization.video import Frames
from tokenization.world.dataset import load_truth


@dataclasses.dataclass(frozen=True)
class Spoiling:
    """What happens to true trajectories.

    Attributes:
      switches: probability that a trajectory becomes another one from a frame to the next.
      swaps: probability that a trajectory is among those which exchange their names from a frame
        to the next: identities are lost, but there are as many trajectories as before.
      shift: how far a frame's masks are moved, at most, as a fraction of its side.
    """

    switches: float = 0.0
    shift: float = 0.0
    swaps: float = 0.0


SPOILT = {
    "truth": Spoiling(),
    "truth_switched10": Spoiling(switches=0.1),
    "truth_switched": Spoiling(switches=0.25),
    "truth_switched50": Spoiling(switches=0.5),
    "truth_swapped": Spoiling(swaps=0.25),
    "truth_swapped50": Spoiling(swaps=0.5),
    "truth_cut": Spoiling(switches=1.0),
    "truth_shifted": Spoiling(shift=0.1),
}


class TruthTokenizer:
    """Gives the truth of the world's clips, spoilt or not, in place of segmenting and tracking.

    Args:
      world: folder of `tokenization.world`.
      spoiling: of the truth; what is drawn depends on the clip alone.
    """

    def __init__(self, world: Path, spoiling: Spoiling):
        self._world, self._spoiling = world, spoiling

    def tokenize(self, frames: Frames) -> Trajectories:
        """See `tokenization.recorder.Tokenizer`."""
        name = frames.video.id
        labels = true_labels(self._world, name, frames.indices)
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        labels = spoil(labels, self._spoiling, np.random.default_rng(seed))
        key_frames = np.zeros(len(labels), bool)
        key_frames[0] = True
        return Trajectories.from_labels(
            labels,
            frame_times=frames.times,
            key_frames=key_frames,
            video=frames.video,
            made_by={"segmenter": "truth", "tracker": "truth"} | dataclasses.asdict(self._spoiling),
        )


def split_of(name: str) -> str:
    """Of a clip's id, `world-SEED-SPLIT-NUMBER`."""
    return name.split("-")[2]


def true_labels(
    world: Path, name: str, frames: Sequence[int] | np.ndarray
) -> UInt16[np.ndarray, "t h w"]:
    """The label of every pixel: objects by id, then the background of each shot."""
    truth = load_truth(world / split_of(name) / "truth" / name)
    labels = truth.labels.copy()
    shot = np.searchsorted(truth.cuts, np.arange(len(labels)), side="right")
    background = (labels.max() + 1 + shot).astype(np.uint16)
    return np.where(labels > 0, labels, background[:, None, None])[np.asarray(frames)]


def spoil(
    labels: UInt16[np.ndarray, "t h w"], spoiling: Spoiling, rng: np.random.Generator
) -> UInt16[np.ndarray, "t h w"]:
    """The labels with some of their identities, or their places, lost; not dense."""
    t, h, w = labels.shape
    if spoiling.shift:
        reach = [round(spoiling.shift * side) for side in (h, w)]
        moves = [rng.integers(-most, most + 1, t) for most in reach]
        labels = np.stack(
            [np.roll(one, move, (0, 1)) for one, *move in zip(labels, *moves, strict=True)]
        )
    if spoiling.switches:
        names = np.arange(int(labels.max()) + 1)
        spoilt, last = [labels[0]], len(names) - 1
        for frame in labels[1:]:
            lost = rng.random(len(names)) < spoiling.switches
            names = np.where(lost, last + 1 + np.arange(len(names)), names)
            last += len(names)
            spoilt.append(names[frame].astype(np.uint16))
        labels = np.stack(spoilt)
    if spoiling.swaps:
        names, seen = np.arange(int(labels.max()) + 1), np.unique(labels[labels > 0])
        spoilt = [labels[0]]
        for frame in labels[1:]:
            swapped = seen[rng.random(len(seen)) < spoiling.swaps]
            names[swapped] = names[np.roll(swapped, 1)]
            spoilt.append(names[frame].astype(labels.dtype))
        labels = np.stack(spoilt)
    return labels


@dataclasses.dataclass(frozen=True)
class TrackingError:
    """How wrong trajectories are, over all objects of a set of clips.

    Attributes:
      lost: 1 - the IoU of an object's tube with the best trajectory's, mean.
      switches: identity switches an object.
    """

    lost: float
    switches: float


def tracking_error(
    world: Path, entries: Sequence[Entry], found: Sequence[Trajectories]
) -> TrackingError:
    """Of trajectories of the world's clips, at their own size.

    Args:
      world: folder of `tokenization.world`.
      entries: of the clips, all of whose frames were read.
      found: of each clip.
    """
    ious, switches = [], []
    for entry, trajectories in zip(entries, found, strict=True):
        truth = load_truth(world / split_of(entry.id) / "truth" / entry.id).labels
        h, w = truth.shape[1:]
        shared = overlaps(trajectories.resize(h, w).labels, truth)
        seen = shared.sum((0, 2))[1:] > 0
        ious.append(tube_ious(shared)[seen])
        switches.append(identity_switches(shared)[seen])
    return TrackingError(
        1 - float(np.concatenate(ious).mean()), float(np.concatenate(switches).mean())
    )
