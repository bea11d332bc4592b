"""Pieces of a video and their merging beside plain references, and motion beside the camera."""

from __future__ import annotations

import dataclasses
import itertools
import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.trackers.camera import own_motion
from tokenization.trackers.optical_flow import Origins, origins_both_ways
from tokenization.trackers.tubes import (
    BIAS,
    ODDS,
    TubeSettings,
    common_pieces,
    evidence,
    merge_tubes,
    tubes_of,
)

seeds = settings(max_examples=15, deadline=None)
T, H, W = 4, 6, 7


def made(seed: int, n: int = 9) -> tuple[np.ndarray, np.ndarray, list]:
    """A partition into blobs, colours, and own motions of which some are not known."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform(0, (T, H, W), (n, 3))
    places = np.moveaxis(np.indices((T, H, W)), 0, -1)
    labels = np.linalg.norm(places[..., None, :] - centres, axis=-1).argmin(-1)
    labels = np.unique(labels, return_inverse=True)[1].reshape(T, H, W)
    colours = rng.normal(0, 4, (T, H, W, 3))
    motions = [(rng.normal(0, 2, (H, W, 2)), rng.random((H, W)) < 0.6) for _ in range(T - 1)]
    return labels, colours, motions


def plain_evidence(
    one: np.ndarray, other: np.ndarray, colours: np.ndarray, motions: list
) -> list[float] | None:
    """Of two masks of space-time; None where they do not touch."""
    steps, outlines = [], [0, 0]
    for t, y, x in itertools.product(range(T), range(H), range(W)):
        for below, right in ((1, 0), (0, 1)):
            if y + below < H and x + right < W:
                a, b = (t, y, x), (t, y + below, x + right)
                if (one[a] and other[b]) or (one[b] and other[a]):
                    steps.append(math.dist(colours[a], colours[b]))
                for number, mask in enumerate((one, other)):
                    outlines[number] += mask[a] != mask[b]
    if not steps:
        return None
    apart, together = [], []
    for t, (motion, known) in enumerate(motions):
        its = [motion[mask[t] & known] for mask in (one, other)]
        if min(map(len, its)) >= 3:
            means = [values.mean(0) for values in its]
            square = ((means[0] - means[1]) ** 2).sum()
            apart.append(square / (1 + square / 36))
            together.append((((means[0] + means[1]) / 2) ** 2).sum())
    motion = math.sqrt(sum(apart) / (len(apart) + 1))
    common = math.sqrt(np.mean(together)) if together else 0.0
    colour = math.dist(colours[one].mean(0), colours[other].mean(0))
    spreads = [
        math.sqrt(np.square(colours[mask] - colours[mask].mean(0)).sum(1).mean())
        for mask in (one, other)
    ]
    return [
        math.log(1 + colour),
        colour / 10,
        math.log(1 + np.mean(steps)),
        math.log(1 + motion),
        math.log(1 + common),
        motion / (common + 0.5),
        math.log(min(one.mean(), other.mean())),
        math.log(max(one.mean(), other.mean())),
        len(steps) / min(outlines),
        abs(spreads[0] - spreads[1]),
    ]


def plain_merging(
    labels: np.ndarray, colours: np.ndarray, motions: list, chosen: TubeSettings
) -> np.ndarray:
    """Everything anew after every join."""
    labels = labels.copy()
    while True:
        pairs = []
        for a, b in itertools.combinations(np.unique(labels).tolist(), 2):
            seen = plain_evidence(labels == a, labels == b, colours, motions)
            if seen is not None:
                pairs.append((np.dot(seen, list(ODDS.values())) + BIAS, a, b))
        if not pairs:
            return labels
        odds, a, b = max(pairs)
        if odds < chosen.odds and np.unique(labels).size <= chosen.most:
            return labels
        labels[labels == b] = a


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).shape[1]
    return pairs == np.unique(one).size == np.unique(other).size


@seeds
@given(st.integers(0, 1000))
def test_evidence_is_what_the_masks_of_a_pair_tell(seed: int):
    labels, colours, motions = made(seed)
    tubes = tubes_of(labels, colours, motions)
    found = evidence(tubes, *tubes.edges.T, tubes.borders, tubes.steps)
    expected = {}
    for a, b in itertools.combinations(np.unique(labels).tolist(), 2):
        seen = plain_evidence(labels == a, labels == b, colours, motions)
        if seen is not None:
            expected[a, b] = seen
    assert sorted(expected) == [tuple(edge) for edge in tubes.edges.tolist()]
    np.testing.assert_allclose(found, [expected[edge] for edge in sorted(expected)], atol=1e-9)


@seeds
@given(st.integers(0, 1000), st.sampled_from([-9.0, -1.0, 0.0, 1.0, 9.0]), st.integers(1, 9))
def test_merging_is_that_of_the_likeliest_pair_each_time(seed: int, odds: float, most: int):
    labels, colours, motions = made(seed)
    chosen = TubeSettings(odds=odds, most=most)
    found = merge_tubes(tubes_of(labels, colours, motions), chosen)
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))
    assert same_partition(found[labels], plain_merging(labels, colours, motions, chosen))


@pytest.mark.parametrize("highest", [6, 6000])  # by a table, and by sorting
def test_pieces_are_where_all_partitions_agree(highest: int):
    rng = np.random.default_rng(0)
    parts = [rng.choice([3, 5, highest], (2, 4, 5)) for _ in range(3)]
    found = common_pieces(*parts)
    assert np.array_equal(np.unique(found), np.arange(found.max() + 1))
    triples = np.stack([part.ravel() for part in parts], 1)
    _, expected = np.unique(triples, axis=0, return_inverse=True)
    assert same_partition(found, expected.reshape(found.shape))


def test_pieces_that_never_touch_are_never_joined():
    labels = np.zeros((1, 1, 3), np.int64)
    labels[0, 0] = 0, 1, 2
    tubes = tubes_of(labels, np.zeros((1, 1, 3, 3)), [])
    assert tubes.edges.tolist() == [[0, 1], [1, 2]]
    apart = dataclasses.replace(
        tubes, edges=tubes.edges[:1], borders=tubes.borders[:1], steps=tubes.steps[:1]
    )
    assert merge_tubes(apart, TubeSettings(most=1)).tolist() == [0, 0, 1]


def test_common_fate_joins_what_colour_does_not():
    """Two halves of one colour each: joined where they move alike and unlike what is around."""
    labels = np.zeros((T, 20, 30), np.int64)
    labels[:, 5:15, 8:15], labels[:, 5:15, 15:22] = 1, 2
    colours = np.array([[0.0, 0, 0], [6.0, 0, 0], [12.0, 0, 0]])[labels]
    known = np.ones((20, 30), bool)

    def odds(left: float, right: float) -> float:
        motions = [
            (np.array([[0.0, 0.0], [left, 0.0], [right, 0.0]])[labels[t]], known)
            for t in range(T - 1)
        ]
        tubes = tubes_of(labels, colours, motions)
        seen = evidence(tubes, *tubes.edges.T, tubes.borders, tubes.steps)
        found = dict(zip(map(tuple, tubes.edges.tolist()), seen @ list(ODDS.values()), strict=True))
        return found[1, 2]

    assert odds(4.0, 4.0) > odds(0.0, 0.0) > odds(4.0, -4.0)


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"TubeSettings\.most = 0 must be >= 1"):
        TubeSettings(most=0)


def ground(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(60, 200, (height // 6, width // 6, 3))
    return cv2.resize(coarse.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)


def test_origins_both_ways_are_those_of_either_way():
    frames = [ground(120, 200)[:96, x : x + 128] for x in (0, 4, 9)]
    lab = [cv2.cvtColor(frame, cv2.COLOR_RGB2LAB) for frame in frames]
    chosen = {"colour_tolerance": 25.0}
    came, went = origins_both_ways(lab[0], lab[2], between=lab[1:2], **chosen)
    back, _ = origins_both_ways(lab[2], lab[0], between=lab[1:2], **chosen)
    assert (went.sure == back.sure).mean() > 0.95
    sure = went.sure & back.sure
    assert np.abs(went.columns[sure] - back.columns[sure]).max() <= 1
    inner = np.s_[20:70, 30:90]
    assert went.sure[inner].mean() > 0.9 and came.sure[inner].mean() > 0.9
    assert abs(np.median(went.columns[inner] - np.arange(30, 90)) + 9) <= 1
    assert abs(np.median(came.columns[inner] - np.arange(30, 90)) - 9) <= 1


def moved(matrix: list, square: tuple[int, int]) -> Origins:
    """A picture whose pixels go where an affine camera takes them, and a square goes further."""
    y, x = np.mgrid[:90, :160].astype(float)
    columns, rows = np.tensordot(np.array(matrix), np.stack([np.ones_like(x), x, y]), 1)
    columns[20:50, 30:70] += square[0]
    rows[20:50, 30:70] += square[1]
    inside = (rows >= 0) & (rows < 90) & (columns >= 0) & (columns < 160)
    return Origins(
        np.clip(np.rint(rows), 0, 89).astype(np.int16),
        np.clip(np.rint(columns), 0, 159).astype(np.int16),
        inside,
    )


@pytest.mark.parametrize(
    "matrix",
    [[[0, 1, 0], [0, 0, 1]], [[7, 1, 0], [-3, 0, 1]], [[-6, 1.06, 0.02], [-4, -0.02, 1.06]]],
)
def test_own_motion_is_what_the_camera_does_not_explain(matrix: list):
    went = moved(matrix, (5, -2))
    found = own_motion(went)
    inside = np.zeros((90, 160), bool)
    inside[20:50, 30:70] = True
    ground = went.sure & ~inside
    # Displacements are whole pixels.
    assert np.abs(found[ground]).max() < 1
    assert np.abs(found[ground].mean(0)).max() < 0.2
    assert np.abs(found[inside & went.sure].mean(0) - (5, -2)).max() < 0.3


def test_own_motion_without_a_sure_pixel_is_all_motion():
    still = moved([[0, 1, 0], [0, 0, 1]], (0, 0))
    unknown = dataclasses.replace(still, sure=np.zeros_like(still.sure))
    assert np.abs(own_motion(unknown)).max() == 0


def test_evidence_is_weighed_by_its_name(monkeypatch):
    labels = np.arange(4).repeat(5)[None, None] * np.ones((1, 3, 1), np.int64)
    colours = np.random.default_rng(0).uniform(0, 100, (*labels.shape, 3))
    tubes = tubes_of(labels, colours, [])
    pairs = (*tubes.edges.T, tubes.borders, tubes.steps)
    found = evidence(tubes, *pairs)
    monkeypatch.setattr("tokenization.trackers.tubes.ODDS", dict(reversed(ODDS.items())))
    assert np.array_equal(evidence(tubes, *pairs), found[:, ::-1])
