"""What speaks for a label in a superpixel, beside its plain formula."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.regions import RegionGraph
from tokenization.superpixels import Superpixels
from tokenization.trackers.appearance import (
    Examples,
    closeness,
    colour_likelihood,
    local_likelihood,
)
from tokenization.trackers.births import components, grow, newborn
from tokenization.trackers.smoothing import smoothed

seeds = settings(max_examples=15, deadline=None)


def made(seed: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features of regions, and of examples with their owners; label 1 has none."""
    rng = np.random.default_rng(seed)
    owners = rng.choice([label for label in range(labels) if label != 1], 9)
    return rng.normal(0, 2, (5, 5)), rng.normal(0, 2, (9, 5)), owners


def kernel(a: np.ndarray, b: np.ndarray, unit: float) -> float:
    return math.exp(-((a - b) ** 2).sum() / (2 * unit**2))


@seeds
@given(st.integers(0, 1000))
def test_colour_likelihood_is_a_mean_of_kernels(seed: int):
    regions, examples, owners = made(seed)
    found = colour_likelihood(regions, Examples.of(examples, owners), 4, bandwidth=3.0)
    for s, region in enumerate(regions):
        for label in range(4):
            its = [kernel(region[:3], e[:3], 3.0) for e in examples[owners == label]]
            np.testing.assert_allclose(found[s, label], np.mean(its) if its else 0, rtol=1e-4)


@seeds
@given(st.integers(0, 1000))
def test_local_likelihood_weighs_by_position_and_leans_on_all_labels(seed: int):
    regions, examples, owners = made(seed)
    found = local_likelihood(
        regions, Examples.of(examples, owners), 4, bandwidth=3.0, reach=2.0, prior=1.5
    )
    for s, region in enumerate(regions):
        near = np.array([kernel(region[3:], e[3:], 2.0) for e in examples])
        hits = near * [kernel(region[:3], e[:3], 3.0) for e in examples]
        overall = hits.sum() / near.sum()
        for label in range(4):
            its = owners == label
            expected = (hits[its].sum() + 1.5 * overall) / (near[its].sum() + 1.5)
            np.testing.assert_allclose(found[s, label], expected, rtol=1e-4)


@seeds
@given(st.integers(0, 1000))
def test_closeness_is_that_of_the_nearest_example(seed: int):
    regions, examples, owners = made(seed)
    found = closeness(regions, Examples.of(examples, owners), 4, reach=2.0)
    for s, region in enumerate(regions):
        for label in range(4):
            its = [kernel(region[3:], e[3:], 2.0) for e in examples[owners == label]]
            np.testing.assert_allclose(found[s, label], max(its, default=0), rtol=1e-4)


def test_examples_are_joined_in_the_order_of_their_labels():
    one = Examples.of(np.array([[3.0], [1.0]]), np.array([3, 1]))
    both = one.join(Examples.of(np.array([[2.0]]), np.array([2])))
    assert both.owners.tolist() == [1, 2, 3]
    assert both.features.ravel().tolist() == [1.0, 2.0, 3.0]


def chain(colours: list[float]) -> RegionGraph:
    n = len(colours)
    features = np.array([[colour, 0.0, 0.0] for colour in colours])
    return RegionGraph(np.ones(n), features, np.array([(i, i + 1) for i in range(n - 1)]))


@seeds
@given(st.integers(0, 1000), st.floats(0, 3))
def test_smoothing_is_mean_field_on_a_potts_model(seed: int, strength: float):
    rng = np.random.default_rng(seed)
    graph = chain(rng.normal(0, 4, 5).tolist())
    evidence = rng.normal(0, 2, (5, 3))

    def softmax(log: np.ndarray) -> np.ndarray:
        return np.exp(log) / np.exp(log).sum()

    expected = np.stack([softmax(row) for row in evidence])
    for _ in range(3):
        pulled = evidence.copy()
        for a, b in graph.edges:
            apart = ((graph.features[a] - graph.features[b]) ** 2).sum()
            weight = 2 * strength * math.exp(-apart / 5.0**2)
            pulled[a] += weight * expected[b]
            pulled[b] += weight * expected[a]
        expected = np.stack([softmax(row) for row in pulled])
    found = smoothed(evidence, graph, edge=5.0, strength=strength)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_smoothing_stops_at_edges():
    evidence = np.array([[2.0, 0.0], [0.0, 0.3], [0.0, 0.3]])
    found = smoothed(evidence, chain([0.0, 0.0, 100.0]), edge=5.0, strength=1.0)
    assert found.argmax(1).tolist() == [0, 0, 1]


def test_labels_grow_over_what_is_most_alike_first():
    owners = np.array([0, -1, -1, -1, 1])
    distances = np.array([[0, 9], [2, 9], [3, 1], [8, 2], [9, 0]], float)
    neighbours = [[1], [0, 2], [1, 3], [2, 4], [3]]
    grow(owners, distances, neighbours, 2.5)
    assert owners.tolist() == [0, 0, 1, 1, 1]
    owners = np.array([0, -1, -1, -1, 1])
    grow(owners, distances, neighbours, 1.5)
    assert owners.tolist() == [0, -1, -1, -1, 1]


def test_components_are_what_hangs_together():
    graph = RegionGraph(np.ones(4), np.zeros((4, 3)), np.array([[0, 2], [1, 3]]))
    assert components(graph).tolist() == [0, 1, 0, 1]


def test_what_is_born_is_one_thing_where_a_segment_or_a_colour_says_so():
    """Four superpixels in a row, the first of which has a label."""
    edges = np.array([[0, 1], [1, 2], [2, 3]])
    features = np.array([[0.0], [0.0], [9.0], [10.0]]).repeat(3, 1)
    graph = RegionGraph(np.array([1.0, 2.0, 3.0, 4.0]), features, edges)
    cells = Superpixels(np.arange(4).repeat([1, 2, 3, 4])[None].astype(np.int32), graph)
    free = np.array([1, 2, 3])
    region, areas = newborn(cells, free, None, alike=2.0)
    assert region.tolist() == [0, 1, 1] and areas.tolist() == [2, 7]
    segments = np.array([[1, 1, 1, 1, 1, 1, 2, 2, 2, 2]], np.int32)
    region, areas = newborn(cells, free, segments, alike=2.0)
    assert region.tolist() == [0, 0, 1] and areas.tolist() == [5, 4]


@seeds
@given(st.integers(0, 1000))
def test_superpixels_count_and_average_their_pixels(seed: int):
    rng = np.random.default_rng(seed)
    cells = np.arange(6).repeat(4).reshape(4, 6).astype(np.int32)
    labels, mask = rng.integers(0, 3, (4, 6)), rng.random((4, 6)) < 0.5
    image = rng.random((4, 6))
    areas = np.full(6, 4.0)
    graph = RegionGraph(areas, np.zeros((6, 3)), np.zeros((0, 2), np.int64))
    found = Superpixels(cells, graph)
    for cell in range(6):
        for label in range(3):
            here = (cells == cell) & (labels == label)
            assert found.counts(labels, 3)[cell, label] == here.sum()
            assert found.counts(labels, 3, where=mask)[cell, label] == (here & mask).sum()
        np.testing.assert_allclose(found.means(image)[cell, 0], image[cells == cell].mean())
