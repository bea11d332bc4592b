"""Regions of a label map as a graph: areas, mean features, neighbours, and merging."""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
import typing

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer


@dataclasses.dataclass(frozen=True, eq=False)
class RegionGraph:
    """Regions 0..n-1 and which of them touch (4-neighbourhood).

    Attributes:
      areas: in pixels.
      features: mean over each region.
      edges: pairs of touching regions, the smaller number first.
    """

    areas: Float64[np.ndarray, " n"]
    features: Float64[np.ndarray, "n c"]
    edges: Int64[np.ndarray, "m 2"]

    def neighbours(self) -> list[list[int]]:
        """Which regions each one touches."""
        ends = np.concatenate([self.edges[:, ::-1], self.edges])
        order = np.argsort(ends[:, 0], kind="stable")
        bounds = np.searchsorted(ends[order, 0], np.arange(self.areas.size + 1)).tolist()
        others = ends[order, 1].tolist()
        return [others[a:b] for a, b in itertools.pairwise(bounds)]

    def subgraph(self, keep: Int64[np.ndarray, " k"]) -> RegionGraph:
        """The given regions, renumbered in their order, and the edges between them."""
        number = np.full(self.areas.size, -1)
        number[keep] = np.arange(keep.size)
        edges = number[self.edges]
        return RegionGraph(self.areas[keep], self.features[keep], edges[(edges >= 0).all(1)])


def region_graph(
    labels: Integer[np.ndarray, "h w"], features: Float[np.ndarray, "h w c"]
) -> RegionGraph:
    """Graph of the regions 0..n-1 of a label map; each number must be present."""
    n = int(labels.max()) + 1
    flat = labels.reshape(-1)
    areas = np.bincount(flat, minlength=n).astype(np.float64)
    channels = features.reshape(flat.size, -1).T
    sums = np.stack([np.bincount(flat, channel, minlength=n) for channel in channels], -1)
    pairs = []
    for one, other in ((labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])):
        differ = one != other
        a, b = one[differ].astype(np.int64), other[differ].astype(np.int64)
        pairs.append(np.minimum(a, b) * n + np.maximum(a, b))
    # Sorting is faster than what `np.unique` does.
    touching = np.sort(np.concatenate(pairs))
    touching = touching[np.flatnonzero(np.diff(touching, prepend=-1))]
    return RegionGraph(areas, sums / areas[:, None], np.stack([touching // n, touching % n], -1))


def merge(
    graph: RegionGraph,
    *,
    threshold: float,
    grain: float,
    min_area: float = 0.0,
    max_regions: int | None = None,
) -> Int64[np.ndarray, " n"]:
    """Merges similar neighbours, most similar first, then small regions into similar neighbours.

    As in graph-based segmentation (Felzenszwalb and Huttenlocher 2004), how much two regions
    may differ depends on the area of the smaller one: threshold * (1 + grain / area). Unlike
    there, the difference is that of the regions' means, updated as they grow.

    Args:
      graph: regions with features whose Euclidean distance says how much they differ.
      threshold: of the difference, for large regions.
      grain: area in pixels of a region that may differ twice as much.
      min_area: smaller regions go to their most similar neighbour, whatever the difference.
      max_regions: so do the smallest ones while there are more regions than this.

    Returns:
      New numbers 0..k-1 of the regions.
    """
    merging = _Merging(graph)
    heap = [(merging.distance(a, b, grain), a, b, 0, 0) for a, b in graph.edges.tolist()]
    heapq.heapify(heap)
    while heap and heap[0][0] <= threshold:
        _, a, b, version_a, version_b = heapq.heappop(heap)
        if merging.version[a] != version_a or merging.version[b] != version_b:
            continue
        kept = merging.join(a, b)
        for c in merging.neighbours[kept]:
            cost = merging.distance(kept, c, grain)
            heapq.heappush(heap, (cost, kept, c, merging.version[kept], merging.version[c]))
    most = len(merging.areas) if max_regions is None else max_regions
    small = [(merging.areas[a], a, merging.version[a]) for a in merging.alive()]
    heapq.heapify(small)
    while small and (small[0][0] < min_area or merging.count > most):
        _, a, version = heapq.heappop(small)
        if merging.version[a] != version or not merging.neighbours[a]:
            continue
        nearest = min(merging.neighbours[a], key=lambda c: (merging.distance(a, c, 0.0), c))
        kept = merging.join(a, nearest)
        heapq.heappush(small, (merging.areas[kept], kept, merging.version[kept]))
    return merging.numbers()


# Called for every pair of regions: too often for type checks while tests run.
@typing.no_type_check
class _Merging:
    """Regions in the course of merging; a region's version tells stale queue entries."""

    def __init__(self, graph: RegionGraph) -> None:
        self.areas = graph.areas.tolist()
        self.neighbours = [set(near) for near in graph.neighbours()]
        self.version = [0] * len(self.areas)
        self.count = len(self.areas)
        self._features = graph.features.tolist()
        self._parent = list(range(len(self.areas)))

    def alive(self) -> list[int]:
        return [a for a, version in enumerate(self.version) if version >= 0]

    def distance(self, a: int, b: int, grain: float) -> float:
        apart = math.dist(self._features[a], self._features[b])
        return apart / (1.0 + grain / min(self.areas[a], self.areas[b]))

    def join(self, a: int, b: int) -> int:
        """Makes one region of two and returns its number, that of the larger one."""
        if self.areas[a] < self.areas[b]:
            a, b = b, a
        total = self.areas[a] + self.areas[b]
        share = self.areas[b] / total
        pairs = zip(self._features[a], self._features[b], strict=True)
        self._features[a] = [p + share * (q - p) for p, q in pairs]
        self.areas[a] = total
        self._parent[b] = a
        self.version[a] += 1
        self.version[b] = -1
        self.count -= 1
        for c in self.neighbours[b] - {a}:
            self.neighbours[c].discard(b)
            self.neighbours[c].add(a)
            self.neighbours[a].add(c)
        self.neighbours[a].discard(b)
        self.neighbours[b].clear()
        return a

    def numbers(self) -> Int64[np.ndarray, " n"]:
        root = np.array(self._parent)
        while not np.array_equal(root[root], root):
            root = root[root]
        return np.unique(root, return_inverse=True)[1].astype(np.int64)
