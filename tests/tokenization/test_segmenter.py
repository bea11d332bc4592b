"""The classical segmenter, and the region graphs and superpixels it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label as components

from tokenization.regions import RegionGraph, merge, region_graph
from tokenization.segmenters.classical import ClassicalSegmenter, ClassicalSettings
from tokenization.superpixels import (
    colour_features,
    fill_gaps,
    smooth_lab,
    superpixels,
)

RED, BLUE, GREY = (214, 36, 36), (36, 66, 214), (128, 130, 125)


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def scene(height: int = 96, width: int = 160) -> np.ndarray:
    """A red and a blue square before grey, with some grain."""
    frame = np.full((height, width, 3), GREY, np.uint8)
    frame[height // 4 : height // 2, width // 8 : width // 3] = RED
    frame[height // 2 : -height // 8, width // 2 : -width // 8] = BLUE
    grain = np.random.default_rng(0).integers(0, 9, frame.shape)
    return np.clip(frame + grain, 0, 255).astype(np.uint8)


def segment(frame: np.ndarray, **settings: object) -> np.ndarray:
    return ClassicalSegmenter(ClassicalSettings(**settings)).segment(frame[None])[0]  # type: ignore[arg-type]


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 3), st.integers(1, 40))
def test_labels_are_dense_connected_and_cover(height: int, width: int, seed: int, most: int):
    labels = segment(noise(height, width, seed), max_segments=most, superpixels=100)
    assert labels.shape == (height, width)
    assert np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))
    assert labels.max() <= most
    assert components(labels, connectivity=1, background=0).max() == labels.max()


def test_frames_are_segmented_each_on_its_own():
    frames = np.stack([scene(), noise(96, 160)])
    both = ClassicalSegmenter().segment(frames)
    assert np.array_equal(both[0], segment(frames[0]))
    assert np.array_equal(both[1], segment(frames[1]))


@pytest.mark.parametrize("shape", [(128, 128), (288, 512), (90, 60)])
def test_finds_squares_at_any_size(shape: tuple[int, int]):
    frame = scene(*shape)
    labels = segment(frame)
    for colour in (RED, BLUE):
        inside = np.abs(frame.astype(int) - colour).max(-1) < 12
        found = labels == np.bincount(labels[inside]).argmax()
        assert (found & inside).sum() / (found | inside).sum() > 0.9
    assert 3 <= labels.max() <= 8


def test_one_colour_is_one_segment():
    assert segment(np.full((120, 90, 3), 77, np.uint8)).max() == 1


def test_shading_does_not_cut_a_surface_but_colour_does():
    frame = np.full((64, 64, 3), RED, np.float32)
    frame[:, 32:] *= 0.7
    assert segment(frame.astype(np.uint8), threshold=8.0).max() == 1
    frame[:, 32:] = BLUE
    assert segment(frame.astype(np.uint8), threshold=8.0).max() == 2


def test_shaded_colours_are_nearer_than_in_lab():
    pair = np.array([[RED, np.multiply(RED, 0.6)]]).astype(np.uint8)
    lab = smooth_lab(pair)
    plain = np.linalg.norm((lab[0, 0].astype(float) - lab[0, 1]) * (100 / 255, 1, 1))
    features = colour_features(lab)[0]
    assert np.linalg.norm(features[0] - features[1]) < plain / 2


def test_a_lower_threshold_gives_more_segments():
    rng = np.random.default_rng(0)
    blocks = np.kron(rng.integers(60, 200, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    assert segment(blocks, threshold=1.0).max() > segment(blocks, threshold=12.0).max() >= 1


@pytest.mark.parametrize("name", ["side", "superpixels", "max_segments"])
def test_settings_are_checked(name: str):
    with pytest.raises(ValueError, match=rf"ClassicalSettings\.{name} = 0"):
        ClassicalSettings(**{name: 0})


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 200), st.integers(0, 3))
def test_superpixels_are_dense_and_connected(height: int, width: int, count: int, seed: int):
    cells = superpixels(smooth_lab(noise(height, width, seed)), count)
    n = cells.graph.areas.size
    assert np.array_equal(np.unique(cells.labels), np.arange(n))
    assert components(cells.labels + 1, connectivity=1, background=0).max() == n
    assert cells.graph.areas.sum() == height * width


def test_region_graph_of_a_small_map():
    labels = np.array([[0, 0, 1], [2, 2, 1]], np.int32)
    values = np.array([[1, 3, 5], [7, 7, 7]], np.float32)[..., None]
    graph = region_graph(labels, values)
    assert graph.areas.tolist() == [2, 2, 2]
    assert graph.features[:, 0].tolist() == [2, 6, 7]
    assert graph.edges.tolist() == [[0, 1], [0, 2], [1, 2]]
    part = graph.subgraph(np.array([2, 1]))
    assert part.features[:, 0].tolist() == [7, 6]
    assert part.edges.tolist() == [[1, 0]]


def chain(*values: float, areas: tuple[float, ...] | None = None) -> RegionGraph:
    n = len(values)
    steps = np.arange(n - 1)
    return RegionGraph(
        np.array(areas or (10.0,) * n, np.float64),
        np.array(values, np.float64)[:, None],
        np.stack([steps, steps + 1], -1).astype(np.int64),
    )


def test_merging_uses_the_means_of_what_has_grown():
    # 0 and 2 join first (mean 1); 4 is then 3 away, where single links would be 2 apart.
    assert merge(chain(0, 2, 4.5), threshold=2.9, grain=0.0).tolist() == [0, 0, 1]
    assert merge(chain(0, 2, 4.5), threshold=3.6, grain=0.0).tolist() == [0, 0, 0]


def test_small_regions_may_differ_more():
    graph = chain(0, 5, 10, areas=(100, 4, 100))
    assert merge(graph, threshold=3.0, grain=0.0).tolist() == [0, 1, 2]
    assert merge(graph, threshold=3.0, grain=4.0).tolist() == [0, 0, 1]


def test_the_smallest_regions_go_first_to_their_most_similar_neighbour():
    graph = chain(0, 9, 10, 50, areas=(90, 3, 80, 5))
    assert merge(graph, threshold=0.0, grain=0.0, min_area=4.0).tolist() == [0, 1, 1, 2]
    assert merge(graph, threshold=0.0, grain=0.0, max_regions=2).tolist() == [0, 1, 1, 1]


def test_regions_without_neighbours_stay():
    lonely = RegionGraph(np.ones(3), np.zeros((3, 1)), np.zeros((0, 2), np.int64))
    assert merge(lonely, threshold=9.0, grain=1.0, min_area=5.0, max_regions=1).tolist() == [
        0,
        1,
        2,
    ]


def test_gaps_are_filled_from_the_most_similar_side():
    lab = np.array([[[10], [12], [90], [90]]], np.uint8).repeat(3, -1)
    labels = np.array([[1, 0, 0, 2]], np.int32)
    assert fill_gaps(labels, lab).tolist() == [[1, 1, 2, 2]]
    assert labels.tolist() == [[1, 0, 0, 2]]
    assert fill_gaps(np.zeros((1, 4), np.int32), lab).tolist() == [[0, 0, 0, 0]]
