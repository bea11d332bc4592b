"""Frame mAP: cases by hand, and a slow program by its definition."""

from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.evals.frame_map import (
    Detections,
    Truth,
    match,
    mean_average_precision,
    overlaps,
    strongest,
)

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)
WIDE = (0.0, 0.0, 0.8, 1.0)  # overlaps LEFT by 0.625, RIGHT by 0.3


def measured(found, true, *, frames=1, classes=1):
    """found: (frame, box, scores), true: (frame, box, classes that it has)."""
    detections = Detections(
        np.array([f for f, _, _ in found], int),
        np.array([b for _, b, _ in found], float).reshape(-1, 4),
        np.array([s for _, _, s in found], float).reshape(-1, classes),
    )
    has = [[c in own for c in range(classes)] for _, _, own in true]
    truth = Truth(
        np.array([f for f, _, _ in true], int),
        np.array([b for _, b, _ in true], float).reshape(-1, 4),
        np.array(has, bool).reshape(-1, classes),
    )
    return match(detections, truth, frames=frames)


def value(*arguments, **options):
    return mean_average_precision(measured(*arguments, **options))


def test_cases_by_hand():
    true = [(0, LEFT, {0}), (0, RIGHT, {0})]
    assert value([(0, LEFT, [0.9]), (0, RIGHT, [0.8])], true) == 1
    # One of two found: recall 1/2 at precision 1.
    assert value([(0, LEFT, [0.9])], true) == 0.5
    # A second detection of the same box is wrong: right, wrong, right -> 1/2 * 1 + 1/2 * 2/3.
    found = [(0, LEFT, [0.9]), (0, WIDE, [0.8]), (0, RIGHT, [0.7])]
    assert value(found, true) == pytest.approx(1 / 2 + 1 / 3)
    # Wrong, right, right: precision is made monotone, 2/3 all the way.
    found = [(0, (0, 0, 0.1, 0.1), [0.9]), (0, LEFT, [0.8]), (0, RIGHT, [0.7])]
    assert value(found, true) == pytest.approx(2 / 3)
    # The better detection comes second and finds its box taken.
    assert value([(0, WIDE, [0.9]), (0, LEFT, [0.8])], [(0, LEFT, {0})]) == 1
    # In another frame.
    assert value([(1, LEFT, [0.9])], true, frames=2) == 0
    # Nothing found at all.
    assert value([], true) == 0


def test_a_detection_goes_to_the_box_that_it_overlaps_most():
    near, far = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 0.42, 1.0)
    # Both overlap `near` most; the second is not given to `far`, though it overlaps that enough.
    found = [(0, near, [0.9]), (0, (0.0, 0.0, 0.48, 1.0), [0.8])]
    assert overlaps(np.array([found[1][1]]), np.array([far]))[0, 0] > 0.5
    assert value(found, [(0, near, {0}), (0, far, {0})]) == 0.5


def test_classes_without_a_true_box_do_not_count():
    found = [(0, LEFT, [0.9, 0.9, 0.9])]
    true = [(0, LEFT, {0}), (0, RIGHT, {2})]
    each = [one.average_precision() for one in measured(found, true, classes=3)]
    assert each[0] == 1 and np.isnan(each[1]) and each[2] == 0
    assert value(found, true, classes=3) == 0.5
    assert np.isnan(value(found, [], classes=3))


def test_a_missing_score_is_no_detection():
    true = [(0, LEFT, {0}), (0, RIGHT, {0})]
    assert value([(0, LEFT, [0.9]), (0, RIGHT, [np.nan])], true) == 0.5
    with pytest.raises(ValueError, match="score of box 0 is infinite"):
        value([(0, LEFT, [np.inf])], true)


def test_the_strongest_pairs_of_a_frame_are_those_that_the_program_reads():
    """As `read_csv` of ActivityNet's program has it: a heap of so many rows of each image."""
    rng = np.random.default_rng(0)
    frame = rng.integers(4, size=30)
    scores = rng.integers(0, 9, (30, 5)) / 8
    scores[rng.random(scores.shape) < 0.2] = np.nan
    found = strongest(Detections(frame, rng.random((30, 4)), scores), 7).scores
    for number in range(4):
        heap = []
        for row, column in np.argwhere((frame == number)[:, None] & ~np.isnan(scores)).tolist():
            entry = (scores[row, column], -row, -column)
            if len(heap) < 7:
                heapq.heappush(heap, entry)
            elif entry[0] > heap[0][0]:
                heapq.heapreplace(heap, entry)
        kept = {(-row, -column): score for score, row, column in heap}
        left = np.argwhere((frame == number)[:, None] & ~np.isnan(found)).tolist()
        assert {(r, c): found[r, c] for r, c in left} == kept
    same = Detections(frame, rng.random((30, 4)), scores)
    assert strongest(same, 0) is same and not np.isnan(scores).all()


def test_a_pair_that_is_not_read_is_no_detection():
    true = [(0, LEFT, {0}), (0, RIGHT, {1})]
    found = [(0, LEFT, [0.9, 0.8]), (0, RIGHT, [0.7, 0.6])]
    detections = Detections(
        np.zeros(2, int), np.array([LEFT, RIGHT]), np.array([s for *_, s in found])
    )
    truth = Truth(np.zeros(2, int), np.array([LEFT, RIGHT]), np.eye(2, dtype=bool))
    for most, expected in ((0, 0.75), (3, 0.5), (50, 0.75)):
        matched = match(strongest(detections, most), truth, frames=1)
        assert mean_average_precision(matched) == expected
    assert value(found, true, classes=2) == 0.75


def test_equal_scores_are_one_step_whatever_their_order():
    """A constant score cannot put what is right first."""
    true = [(f, LEFT, {0}) for f in range(4)]
    right = [(f, LEFT, [0.5]) for f in range(4)]
    wrong = [(f, RIGHT, [0.5]) for f in range(4)]
    assert value(right + wrong, true, frames=4) == value(wrong + right, true, frames=4) == 0.5


def slow(detections, truth, frames, classes):
    """The definition, word by word; mean over classes."""
    found = []
    for c in range(classes):
        positives = int(truth.classes[:, c].sum())
        if not positives:
            continue
        curve = []
        for f in range(frames):
            boxes = [
                t
                for t, own, at in zip(truth.corners, truth.classes, truth.frame, strict=True)
                if at == f and own[c]
            ]
            used = set()
            own = [
                (s[c], i)
                for i, (s, at) in enumerate(zip(detections.scores, detections.frame, strict=True))
                if at == f and not np.isnan(s[c])
            ]
            for score, i in sorted(own, key=lambda item: -item[0]):
                x0, y0, x1, y1 = detections.corners[i]
                best, place = -1.0, -1
                for j, (a0, b0, a1, b1) in enumerate(boxes):
                    w, h = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
                    both = max(w, 0) * max(h, 0)
                    union = (x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - both
                    if both / union > best:
                        best, place = both / union, j
                right = best >= 0.5 and place not in used
                if right:
                    used.add(place)
                curve.append((score, right))
        points = []
        for threshold in sorted({score for score, _ in curve}, reverse=True):
            kept = [right for score, right in curve if score >= threshold]
            points.append((sum(kept) / positives, sum(kept) / len(kept)))
        area, before = 0.0, 0.0
        for number, (recall, _) in enumerate(points):
            area += (recall - before) * max(p for _, p in points[number:])
            before = recall
        found.append(area)
    return float(np.mean(found)) if found else float("nan")


@st.composite
def scenes(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    frames, classes = draw(st.integers(1, 4)), draw(st.integers(1, 3))

    def boxes(count):
        low = rng.integers(0, 4, (count, 2)) / 8
        return np.concatenate([low, low + rng.integers(1, 5, (count, 2)) / 8], 1)

    n, m = draw(st.integers(0, 9)), draw(st.integers(0, 7))
    corners = boxes(m)
    some = corners[rng.integers(m, size=n)] if m else boxes(n)
    near = np.where(rng.random((n, 1)) < 0.6, some, boxes(n))
    scores = rng.integers(0, 5, (n, classes)) / 4
    scores[rng.random(scores.shape) < 0.15] = np.nan
    detections = Detections(rng.integers(frames, size=n), near, scores)
    truth = Truth(rng.integers(frames, size=m), corners, rng.random((m, classes)) < 0.5)
    return detections, truth, frames, classes


@settings(deadline=None, max_examples=300)
@given(scenes())
def test_the_value_is_that_of_the_definition(scene):
    detections, truth, frames, classes = scene
    found = mean_average_precision(match(detections, truth, frames=frames))
    np.testing.assert_allclose(found, slow(*scene), atol=1e-12)


@settings(deadline=None, max_examples=50)
@given(scenes(), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_a_frame_that_counts_twice_is_there_twice(scene, weights):
    """Which is what the bootstrap rests on."""
    detections, truth, frames, classes = scene
    weights = np.array(weights[:frames], float)

    def repeated(frame):
        """Numbers of the boxes, and the frames they come to."""
        copies = [
            (i, frame_of + frames * k)
            for i, frame_of in enumerate(frame)
            for k in range(int(weights[frame_of]))
        ]
        return ([i for i, _ in copies], np.array([f for _, f in copies], int))

    found, at = repeated(detections.frame)
    true, where = repeated(truth.frame)
    copied = match(
        Detections(at, detections.corners[found], detections.scores[found]),
        Truth(where, truth.corners[true], truth.classes[true]),
        frames=frames * 4,
    )
    weighted = mean_average_precision(match(detections, truth, frames=frames), weights)
    np.testing.assert_allclose(weighted, mean_average_precision(copied), atol=1e-12)


def test_a_public_implementation_gives_the_same():
    """`object-detection-metrics` (podm), where it is installed; its scores have no ties here."""
    reason = "pip install object-detection-metrics shapely"
    podm = pytest.importorskip("podm.metrics", reason=reason)

    def boxes(frame, corners, scores=None):
        return [
            podm.BoundingBox.of_bbox(int(f), "a", *map(float, box), None if scores is None else s)
            for f, box, s in zip(
                frame, corners, frame if scores is None else scores[:, 0].tolist(), strict=True
            )
        ]

    for seed in range(40):
        rng = np.random.default_rng(seed)
        n, m, frames = int(rng.integers(1, 60)), int(rng.integers(1, 30)), 6
        low = rng.uniform(0, 0.6, (m, 2))
        corners = np.concatenate([low, low + rng.uniform(0.1, 0.4, (m, 2))], 1)
        near = corners[rng.integers(m, size=n)] + rng.uniform(-0.04, 0.04, (n, 4))
        near[:, 2:] = np.maximum(near[:, 2:], near[:, :2] + 0.01)
        scores = rng.permutation(n)[:, None] / n
        where, at = rng.integers(frames, size=m), rng.integers(frames, size=n)
        truth = Truth(where, corners, np.ones((m, 1), bool))
        found = mean_average_precision(match(Detections(at, near, scores), truth, frames=frames))
        theirs = podm.get_pascal_voc_metrics(boxes(where, corners), boxes(at, near, scores), 0.5)
        assert found == pytest.approx(theirs["a"].ap, abs=1e-9), seed
