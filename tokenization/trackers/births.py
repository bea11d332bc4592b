"""Superpixels that no label came to: which neighbour takes them, and how they fall into regions."""

from __future__ import annotations

import dataclasses
import heapq

import numpy as np
from jaxtyping import Float, Float64, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tokenization.regions import RegionGraph
from tokenization.superpixels import Superpixels


def components(graph: RegionGraph) -> Int32[np.ndarray, " n"]:
    """Numbers 0..k-1 of the connected parts of a graph."""
    n = graph.areas.size
    ones = np.ones(len(graph.edges), np.int8)
    return connected_components(coo_array((ones, graph.edges.T), shape=(n, n)), directed=False)[1]


def newborn(
    cells: Superpixels,
    free: Int64[np.ndarray, " f"],
    segments: Int32[np.ndarray, "h w"] | None,
    alike: float,
) -> tuple[Int32[np.ndarray, " f"], Float64[np.ndarray, " k"]]:
    """Regions into which superpixels without a label fall, each one thing.

    Args:
      cells: all superpixels of a frame.
      free: numbers of those without a label.
      segments: of the frame; neighbours that lie in one are one thing. None = nobody segmented
        it: then those of one colour are.
      alike: largest distance of such colours.

    Returns:
      The region 0..k-1 of each free superpixel, and the areas of the regions.
    """
    graph = cells.graph
    if segments is None:
        colours = graph.features[:, :3]
        lengths = np.linalg.norm(colours[graph.edges[:, 0]] - colours[graph.edges[:, 1]], axis=1)
        joined = lengths <= alike
    else:
        parts = cells.counts(segments, int(segments.max()) + 1).argmax(1)
        part = parts[graph.edges]
        joined = part[:, 0] == part[:, 1]
    kept = dataclasses.replace(graph, edges=graph.edges[joined]).subgraph(free)
    region = components(kept)
    return region, np.bincount(region, kept.areas)


def grow(
    owners: Int64[np.ndarray, " s"],
    distances: Float[np.ndarray, "s k"],
    neighbours: list[list[int]],
    limit: float,
) -> None:
    """Lets labels take free (-1) neighbouring superpixels, most similar first, in place.

    Args:
      owners: label of each superpixel, or -1.
      distances: from each superpixel to what each label looked like.
      neighbours: which superpixels each one touches.
      limit: distance above which a label leaves a superpixel free.
    """
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
