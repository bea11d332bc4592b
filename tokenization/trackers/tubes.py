"""Pieces of a video that are parts of one thing, joined: merging of space-time regions.

The most likely pair first, as in hierarchical segmentation; how likely two pieces are to be parts
of one thing is a logistic model of what is seen of both.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

# Fitted by `python -m benchmarks.tube_odds`, which tells on what and how, at ccc4885; a50e373 gives
# the same digits. Motion is in pixels of a frame of 256 from one view to the next (`views`): sizes
# and steps other than the default's scale it, and so weigh it otherwise.
ODDS = {
    "colour": -1.061,
    "far colour": 0.225,
    "step": -0.435,
    "motion": -1.289,
    "common motion": 0.540,
    "relative motion": -1.949,
    "smaller": -0.082,
    "larger": -0.293,
    "enclosed": 3.038,
    "spread": -0.089,
}
BIAS = 2.743

_FASTEST = 6.0  # pixels a step: differences of motion above it count little more
_SEEN = 3  # pixels that tell the motion of a piece in a frame
_STILL = 0.5  # pixels a step: motion of what stands still, as measured


@dataclasses.dataclass(frozen=True)
class TubeSettings:
    """When two touching pieces of a video are joined.

    Attributes:
      odds: logarithm of the odds of one thing against two below which pieces stay apart.
      most: trajectories in a shot: the likeliest pieces are joined until there are no more. A
        video has as many for each of its shots.

    Raises:
      ValueError: a value out of its range.
    """

    odds: float = 2.0
    most: int = 50

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError(f"TubeSettings.most = {self.most} must be >= 1")


@dataclasses.dataclass(frozen=True, eq=False)
class Tubes:
    """Space-time pieces 0..n-1, and which of them touch in some frame (4-neighbourhood).

    Attributes:
      volumes: as fractions of the video.
      colours: mean over each piece.
      spreads: standard deviation of the colours from that.
      moved: mean own motion from each sampled frame to the next view, in pixels of the working
        resolution; 0 where nothing is known.
      seen: pixels of which it is known.
      outlines: pairs of pixels along the borders of each piece to all others.
      edges: pairs of touching pieces, the smaller number first.
      borders: pairs of pixels that touch along each edge, in all frames.
      steps: sum of the distances of the colours of such two pixels.
    """

    volumes: Float64[np.ndarray, " n"]
    colours: Float64[np.ndarray, "n c"]
    spreads: Float64[np.ndarray, " n"]
    moved: Float64[np.ndarray, "n t 2"]
    seen: Float64[np.ndarray, "n t"]
    outlines: Float64[np.ndarray, " n"]
    edges: Int64[np.ndarray, "m 2"]
    borders: Float64[np.ndarray, " m"]
    steps: Float64[np.ndarray, " m"]


def common_pieces(*partitions: Int[np.ndarray, "t h w"]) -> Int64[np.ndarray, "t h w"]:
    """Numbers 0..n-1 of the pixels on which all the partitions of a video agree."""
    whole = np.zeros(partitions[0].shape, np.int64)
    for labels in partitions:
        whole = _dense(whole * (int(labels.max()) + 1) + labels)
    return whole


def _dense(numbers: Int64[np.ndarray, "t h w"]) -> Int64[np.ndarray, "t h w"]:
    """The same numbers, renumbered 0..n-1 in their order."""
    if numbers.max() < 4 * numbers.size:  # a table is quicker than sorting
        present = np.bincount(numbers.reshape(-1)) > 0
        return (np.cumsum(present) - 1)[numbers]
    return np.unique(numbers, return_inverse=True)[1].reshape(numbers.shape)


def tubes_of(
    labels: Int64[np.ndarray, "t h w"],
    colours: Float[np.ndarray, "t h w c"],
    motions: Sequence[tuple[Float[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]],
) -> Tubes:
    """The pieces of a video.

    Args:
      labels: 0..n-1, each present somewhere.
      colours: whose Euclidean distance says how much they differ.
      motions: own motion of each pixel of each frame but the last, and where it is known.
    """
    n = int(labels.max()) + 1

    def sums(values: np.ndarray, at: np.ndarray) -> Float64[np.ndarray, "n c"]:
        rows = values.reshape(-1, values.shape[-1]).T
        columns = [np.bincount(at.reshape(-1), row, n) for row in rows]
        return np.stack(columns, -1).astype(np.float64)  # integers without any value

    volumes = np.bincount(labels.reshape(-1), minlength=n).astype(np.float64)
    means = sums(colours, labels) / volumes[:, None]
    squares = sums(np.square(colours).sum(-1, keepdims=True), labels)[:, 0] / volumes
    seen = np.zeros((n, len(motions)))
    moved = np.zeros((n, len(motions), 2))
    for t, (motion, known) in enumerate(motions):
        seen[:, t] = np.bincount(labels[t][known], minlength=n)
        moved[:, t] = sums(motion[known], labels[t][known])
    moved /= np.maximum(seen, 1)[..., None]
    pairs, steps = [], []
    for one, other in ((np.s_[:, :, :-1], np.s_[:, :, 1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differ = labels[one] != labels[other]
        a, b = labels[one][differ], labels[other][differ]
        pairs.append(np.minimum(a, b) * n + np.maximum(a, b))
        steps.append(np.linalg.norm(colours[one][differ] - colours[other][differ], axis=-1))
    touching, edge = np.unique(np.concatenate(pairs), return_inverse=True)
    edges = np.stack([touching // n, touching % n], -1)
    borders = np.bincount(edge, minlength=touching.size).astype(np.float64)
    return Tubes(
        volumes / labels.size,
        means,
        np.sqrt(np.maximum(squares - np.square(means).sum(1), 0)),
        moved,
        seen,
        np.bincount(edges.reshape(-1), borders.repeat(2), n).astype(np.float64),
        edges,
        borders,
        np.bincount(edge, np.concatenate(steps), touching.size).astype(np.float64),
    )


def evidence(
    tubes: Tubes,
    a: Int64[np.ndarray, " m"],
    b: Int64[np.ndarray, " m"],
    borders: Float64[np.ndarray, " m"],
    steps: Float64[np.ndarray, " m"],
) -> Float64[np.ndarray, "m f"]:
    """What speaks for and against pairs of touching pieces being one, in the order of `ODDS`.

    How much their colours differ, and the pixels along their border; how much their motion beside
    the camera does, in the frames that show both, and how fast they move together (that two
    things move alike by chance is likely only where they stand still); their volumes; how much of
    the outline of one is along the other; and whether one is more even than the other.
    """
    colour = np.linalg.norm(tubes.colours[a] - tubes.colours[b], axis=1)
    both = (tubes.seen[a] >= _SEEN) & (tubes.seen[b] >= _SEEN)
    frames = both.sum(1)
    one, other = tubes.moved[a] * both[..., None], tubes.moved[b] * both[..., None]
    squares = np.square(one - other).sum(2)
    squares = squares / (1 + squares / _FASTEST**2)
    # Few frames tell less than many.
    motion = np.sqrt(squares.sum(1) / (frames + 1))
    common = np.sqrt(np.square(one + other).sum((1, 2)) / np.maximum(frames, 1)) / 2
    volumes = tubes.volumes[a], tubes.volumes[b]
    outline = np.minimum(tubes.outlines[a], tubes.outlines[b])
    columns = {
        "colour": np.log1p(colour),
        "far colour": colour / 10,
        "step": np.log1p(steps / borders),
        "motion": np.log1p(motion),
        "common motion": np.log1p(common),
        "relative motion": motion / (common + _STILL),
        "smaller": np.log(np.minimum(*volumes)),
        "larger": np.log(np.maximum(*volumes)),
        "enclosed": borders / np.maximum(outline, 1),
        "spread": np.abs(tubes.spreads[a] - tubes.spreads[b]),
    }
    return np.stack([columns[name] for name in ODDS], 1)


def merge_tubes(
    tubes: Tubes,
    settings: TubeSettings,
    weights: Float64[np.ndarray, " f"] | None = None,
    bias: float = BIAS,
) -> Int64[np.ndarray, " n"]:
    """Joins touching pieces, those first that are most likely parts of one thing.

    Args:
      tubes: the pieces.
      settings: when to stop.
      weights: of the evidence, for the logarithm of the odds; None = `ODDS`.
      bias: of that.

    Returns:
      New numbers 0..k-1 of the pieces.
    """
    merging = Merging(tubes, np.array(list(ODDS.values())) if weights is None else weights, bias)
    while (best := merging.best()) is not None:
        odds, a, b = best
        if odds < settings.odds and merging.count <= settings.most:
            break
        merging.join(a, b)
    return merging.numbers()


class Merging:
    """Pieces in the course of merging.

    Args:
      tubes: before it.
      weights: of the evidence, for the logarithm of the odds.
      bias: of that.
    """

    def __init__(self, tubes: Tubes, weights: Float64[np.ndarray, " f"], bias: float) -> None:
        fields = ("volumes", "colours", "spreads", "moved", "seen", "outlines")
        self.tubes = dataclasses.replace(
            tubes, **{name: getattr(tubes, name).copy() for name in fields}
        )
        self.count = tubes.volumes.size
        self._weights, self._bias = weights, bias
        self._root = np.arange(self.count)
        # A piece's version tells stale entries of the heap; below 0 it is part of another one.
        self._version = [0] * self.count
        # To each neighbour: pairs of pixels along the border, and the sum of their steps.
        self._near: list[dict[int, tuple[float, float]]] = [{} for _ in range(self.count)]
        for (a, b), *border in zip(
            tubes.edges.tolist(), tubes.borders.tolist(), tubes.steps.tolist(), strict=True
        ):
            self._near[a][b] = self._near[b][a] = (border[0], border[1])
        odds = self._odds(*tubes.edges.T, tubes.borders, tubes.steps)
        self._heap = [
            (-its, a, b, 0, 0) for its, (a, b) in zip(odds, tubes.edges.tolist(), strict=True)
        ]
        heapq.heapify(self._heap)

    def _odds(
        self,
        a: Int64[np.ndarray, " m"],
        b: Int64[np.ndarray, " m"],
        borders: Float64[np.ndarray, " m"],
        steps: Float64[np.ndarray, " m"],
    ) -> list[float]:
        seen = evidence(self.tubes, a, b, borders, steps)
        return (seen @ self._weights + self._bias).tolist()

    def best(self) -> tuple[float, int, int] | None:
        """Log-odds and numbers of the likeliest pair; None where nothing touches."""
        while self._heap:
            cost, a, b, version_a, version_b = self._heap[0]
            if (self._version[a], self._version[b]) == (version_a, version_b):
                return -cost, a, b
            heapq.heappop(self._heap)
        return None

    def join(self, a: int, b: int) -> None:
        """Makes one piece of two that touch, by the number of the larger one."""
        tubes = self.tubes
        if tubes.volumes[a] < tubes.volumes[b]:
            a, b = b, a
        total = tubes.volumes[a] + tubes.volumes[b]
        share = tubes.volumes[b] / total
        apart = tubes.colours[b] - tubes.colours[a]
        squares = np.square(tubes.spreads[[a, b]]) @ (1 - share, share)
        tubes.spreads[a] = np.sqrt(squares + share * (1 - share) * (apart @ apart))
        tubes.colours[a] += share * apart
        seen = tubes.seen[a] + tubes.seen[b]
        part = (tubes.seen[b] / np.maximum(seen, 1))[:, None]
        tubes.moved[a] += part * (tubes.moved[b] - tubes.moved[a])
        tubes.seen[a], tubes.volumes[a] = seen, total
        tubes.outlines[a] += tubes.outlines[b] - 2 * self._near[a][b][0]
        mine, its = self._near[a], self._near[b]
        del mine[b], its[a]
        for c, (border, steps) in its.items():
            del self._near[c][b]
            more, further = mine.get(c, (0.0, 0.0))
            mine[c] = self._near[c][a] = (border + more, steps + further)
        its.clear()
        self._root[b] = a
        self._version[a] += 1
        self._version[b] = -1
        self.count -= 1
        if mine:
            others = np.array(list(mine))
            odds = self._odds(np.full(others.size, a), others, *np.array(list(mine.values())).T)
            for c, value in zip(mine, odds, strict=True):
                entry = (-value, a, c, self._version[a], self._version[c])
                heapq.heappush(self._heap, entry)

    def numbers(self) -> Int64[np.ndarray, " n"]:
        """0..k-1, of each piece that there was at first."""
        root = self._root
        while not np.array_equal(root[root], root):
            root = root[root]
        return np.unique(root, return_inverse=True)[1].astype(np.int64)
