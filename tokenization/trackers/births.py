"""Superpixels that no label came to: which neighbour takes them, and how they fall into regions."""

from __future__ import annotations

import heapq

import numpy as np
from jaxtyping import Float, Int32, Int64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tokenization.regions import RegionGraph


def components(graph: RegionGraph) -> Int32[np.ndarray, " n"]:
    """Numbers 0..k-1 of the connected parts of a graph."""
    n = graph.areas.size
    ones = np.ones(len(graph.edges), np.int8)
    return connected_components(coo_array((ones, graph.edges.T), shape=(n, n)), directed=False)[1]


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
