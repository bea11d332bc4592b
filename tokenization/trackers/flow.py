"""The embedded default tracker: labels carried by optical flow, settled superpixel by superpixel.

One flow serves all labels, so the cost does not grow with their number.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64, UInt8
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tokenization.protocols import Clip
from tokenization.regions import RegionGraph
from tokenization.resizing import resize_labels
from tokenization.superpixels import (
    Superpixels,
    fill_gaps,
    shrink,
    smooth_lab,
    superpixels,
)
from tokenization.trackers.memory import Memory
from tokenization.trackers.optical_flow import origins


@dataclasses.dataclass(frozen=True)
class FlowSettings:
    """Distances are those of `superpixels.colour_features`, about those of CIE Lab.

    Attributes:
      side: longer side of the working resolution, in pixels; smaller frames stay as they are.
      superpixels: in a frame.
      colour_tolerance: colour change along the flow above which it is not believed.
      min_vote: share of a superpixel that must come from somewhere to be carried over.
      likeness: distance that lowers a label's vote to 1/e.
      foreign: distance from all that a label looked like above which a superpixel cannot be
        carried over to it.
      grow: distance up to which an uncovered superpixel joins a neighbouring label.
      position: what a distance of the longer side of the frame adds to that of colours.
      new: distance between neighbouring uncovered superpixels of one new label, where no
        segmentation tells.
      min_birth: area of a new label, as a fraction of the frame; smaller uncovered regions
        join their most similar neighbour.
      revive: mean distance, plus 4 for each e-fold of area, up to which a new label is a lost
        one that is back.
      patience: frames for which a lost label is remembered.

    Raises:
      ValueError: a value out of its range.
    """

    side: int = 256
    superpixels: int = 600
    colour_tolerance: float = 25.0
    min_vote: float = 0.4
    likeness: float = 20.0
    foreign: float = 14.0
    grow: float = 6.0
    position: float = 30.0
    new: float = 6.0
    min_birth: float = 0.001
    revive: float = 12.0
    patience: int = 16

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            least = 1 if field.name in ("side", "superpixels") else 0
            if value < least:
                raise ValueError(f"FlowSettings.{field.name} = {value} must be >= {least}")


class FlowTracker:
    """Follows segments from frame to frame and starts labels for what comes into view.

    In every frame the labels of the frame before, warped by dense optical flow where forward
    and backward flow agree, vote in each superpixel, weighted by how much the superpixel looks
    like what the label looked like before. Superpixels that nothing covers join a similar
    neighbour; what is then left is a lost label that is back, or a new one. Every pixel of
    every frame gets a label.
    """

    name = "flow"
    gives_birth = True

    def __init__(self, settings: FlowSettings | None = None) -> None:
        self._settings = settings or FlowSettings()

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """Labels of every frame of each clip; see `protocols.Tracker`.

        Segmentations at offsets above 0 only tell how uncovered regions fall into new labels.
        """
        return [self._track(clip) for clip in clips]

    def _track(self, clip: Clip) -> Int32[np.ndarray, "t h w"]:
        settings = self._settings
        height, width = clip.frames.shape[1:3]
        given = clip.segments[0]
        shot = _Shot(settings, born_above=max(int(s.max()) for s in clip.segments.values()))
        labels = np.empty(clip.frames.shape[:3], np.int32)
        for t, rgb in enumerate(clip.frames):
            lab = smooth_lab(shrink(rgb, settings.side))
            segments = clip.segments.get(t)
            if segments is not None:
                segments = resize_labels(segments, *lab.shape[:2])
            if t == 0 and segments is not None:
                small = shot.start(lab, segments)
            else:
                small = shot.follow(lab, segments)
            labels[t] = resize_labels(small, height, width)
        labels[0] = np.where(given > 0, given, labels[0])
        return labels


class _Shot:
    """Labels in the course of tracking. Inside, they are 0..k-1; `ids` are those outside."""

    def __init__(self, settings: FlowSettings, born_above: int) -> None:
        self._settings = settings
        self._born = born_above
        self._memory = Memory(settings.patience)
        self._ids = np.zeros(0, np.int32)
        self._areas = np.zeros(0)
        self._time = 0

    def start(
        self, lab: UInt8[np.ndarray, "h w 3"], segments: Int32[np.ndarray, "h w"]
    ) -> Int32[np.ndarray, "h w"]:
        """Labels of the first frame: the segments as given, gaps filled."""
        cells = self._cells(lab)
        filled = fill_gaps(segments, lab)
        if not filled.any():
            filled = np.ones_like(filled)
            self._born = max(self._born, 1)
        self._ids, labels = np.unique(filled, return_inverse=True)
        labels = labels.reshape(filled.shape)
        self._areas = np.zeros(self._ids.size)
        votes = _joint(cells.labels, labels, cells.graph.areas.size, self._ids.size)
        owners = votes.argmax(1)
        # A segment smaller than a superpixel is remembered by the one that holds most of it.
        missed = np.setdiff1d(np.arange(self._ids.size), owners)
        features = cells.graph.features
        self._remember(
            np.concatenate([features, features[votes[:, missed].argmax(0)]]),
            np.concatenate([owners, missed]),
            labels,
        )
        self._lab, self._labels = lab, labels
        return self._ids[labels].astype(np.int32)

    def follow(
        self, lab: UInt8[np.ndarray, "h w 3"], segments: Int32[np.ndarray, "h w"] | None
    ) -> Int32[np.ndarray, "h w"]:
        """Labels of the next frame."""
        self._time += 1
        cells = self._cells(lab)
        graph, features = cells.graph, cells.graph.features
        distances = self._memory.distances(features, self._ids.size)
        owners = self._carried(cells, lab, distances)
        neighbours = graph.neighbours()
        _grow(owners, distances, neighbours, self._settings.grow)
        self._bear(owners, cells, segments, distances)
        if (owners < 0).any():
            distances = self._memory.distances(features, self._ids.size)
            _grow(owners, distances, neighbours, np.inf)
        labels = owners[cells.labels]
        native = distances[np.arange(owners.size), np.minimum(owners, distances.shape[1] - 1)]
        native = (native < self._settings.foreign) | (owners >= distances.shape[1])
        self._remember(features[native], owners[native], labels)
        self._lab, self._labels = lab, labels
        return self._ids[labels].astype(np.int32)

    def _cells(self, lab: UInt8[np.ndarray, "h w 3"]) -> Superpixels:
        cells = superpixels(lab, self._settings.superpixels)
        weights = np.array([1, 1, 1, self._settings.position, self._settings.position])
        graph = dataclasses.replace(cells.graph, features=cells.graph.features * weights)
        return dataclasses.replace(cells, graph=graph)

    def _carried(
        self,
        cells: Superpixels,
        lab: UInt8[np.ndarray, "h w 3"],
        distances: Float64[np.ndarray, "s k"],
    ) -> Int64[np.ndarray, " s"]:
        """The label that flow brings to each superpixel, or -1."""
        settings, areas = self._settings, cells.graph.areas
        came = origins(self._lab, lab, colour_tolerance=settings.colour_tolerance)
        warped = self._labels[came.rows, came.columns]
        votes = _joint(cells.labels[came.sure], warped[came.sure], areas.size, self._ids.size)
        alike = 0.1 + 0.9 * np.exp(-np.square(distances / settings.likeness))
        best = (votes * alike).argmax(1)
        enough = votes.sum(1) >= np.maximum(settings.min_vote * areas, 1)
        own = distances[np.arange(best.size), best] < settings.foreign
        return np.where(enough & own, best, -1)

    def _bear(
        self,
        owners: Int64[np.ndarray, " s"],
        cells: Superpixels,
        segments: Int32[np.ndarray, "h w"] | None,
        distances: Float64[np.ndarray, "s k"],
    ) -> None:
        """Gives large uncovered regions a lost label or a new one, in place.

        Where nothing is covered, the largest region gets one however small it is, so that the
        others have something to join.
        """
        graph = cells.graph
        free = np.flatnonzero(owners < 0)
        if not free.size:
            return
        if segments is None:
            colours = graph.features[:, :3]
            lengths = np.linalg.norm(
                colours[graph.edges[:, 0]] - colours[graph.edges[:, 1]], axis=1
            )
            joined = lengths <= self._settings.new
        else:
            votes = _joint(cells.labels, segments, graph.areas.size, int(segments.max()) + 1)
            part = votes.argmax(1)[graph.edges]
            joined = part[:, 0] == part[:, 1]
        kept = dataclasses.replace(graph, edges=graph.edges[joined]).subgraph(free)
        region = _components(kept)
        areas = np.bincount(region, kept.areas)
        lost = np.ones(self._ids.size, bool)
        lost[owners[owners >= 0]] = False
        largest_first = np.argsort(-areas, kind="stable")
        large = areas[largest_first] >= self._settings.min_birth * cells.labels.size
        large[0] |= free.size == owners.size
        for number in largest_first[large]:
            members = free[region == number]
            label = self._returning(distances[members], graph.areas[members], lost)
            if label is None:
                label = self._new()
            else:
                lost[label] = False
            owners[members] = label
            self._memory.update(graph.features[members], owners[members], self._time)

    def _returning(
        self,
        distances: Float64[np.ndarray, "s k"],
        areas: Float64[np.ndarray, " s"],
        lost: Bool[np.ndarray, " k"],
    ) -> int | None:
        """The lost label that a region most looks like, if it does."""
        candidates = np.flatnonzero(lost)
        if not candidates.size:
            return None
        unlike = np.average(distances[:, candidates], axis=0, weights=areas)
        unlike += 4 * np.abs(np.log(self._areas[candidates] / areas.sum()))
        best = int(unlike.argmin())
        return int(candidates[best]) if unlike[best] < self._settings.revive else None

    def _new(self) -> int:
        self._born += 1
        self._ids = np.append(self._ids, np.int32(self._born))
        self._areas = np.append(self._areas, 0.0)
        return self._ids.size - 1

    def _remember(
        self,
        features: Float64[np.ndarray, "s c"],
        owners: Int64[np.ndarray, " s"],
        labels: Int64[np.ndarray, "h w"],
    ) -> None:
        self._memory.update(features, owners, self._time)
        areas = np.bincount(labels.reshape(-1), minlength=self._ids.size).astype(np.float64)
        mixed = np.where(self._areas > 0, (self._areas + areas) / 2, areas)
        self._areas = np.where(areas > 0, mixed, self._areas)


def _joint(
    cells: Int32[np.ndarray, "*p"], labels: np.ndarray, n: int, k: int
) -> Int64[np.ndarray, "{n} {k}"]:
    """Pixels that each cell shares with each label."""
    pairs = cells.astype(np.int64).reshape(-1) * k + labels.reshape(-1)
    return np.bincount(pairs, minlength=n * k).reshape(n, k)


def _components(graph: RegionGraph) -> Int32[np.ndarray, " n"]:
    n = graph.areas.size
    ones = np.ones(len(graph.edges), np.int8)
    return connected_components(coo_array((ones, graph.edges.T), shape=(n, n)), directed=False)[1]


def _grow(
    owners: Int64[np.ndarray, " s"],
    distances: Float64[np.ndarray, "s k"],
    neighbours: list[list[int]],
    limit: float,
) -> None:
    """Lets labels take free neighbouring superpixels, most similar first, in place."""
    heap: list[tuple[float, int, int]] = []

    def offer(cell: int) -> None:
        label = int(owners[cell])
        for near in neighbours[cell]:
            if owners[near] < 0 and distances[near, label] <= limit:
                heapq.heappush(heap, (float(distances[near, label]), near, label))

    for cell in {near for free in np.flatnonzero(owners < 0) for near in neighbours[free]}:
        if owners[cell] >= 0:
            offer(cell)
    while heap:
        _, cell, label = heapq.heappop(heap)
        if owners[cell] < 0:
            owners[cell] = label
            offer(cell)
