"""Retrieval metrics: the released evaluation, a naive oracle, degenerate scores."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trajvit_jax.plain_retrieval import retrieval_metrics
from trajvit_jax.metrics import (
    chance_recall,
    lower_is_better,
    recall_at,
    recall_interval,
    retrieval_ranks,
)


def test_recalls_equal_the_released_ones(golden):
    g = golden("retrieval_metrics")
    variants = sorted({name.split("/")[0] for name in g})
    assert variants
    for variant in variants:
        scores = g[f"{variant}/scores_i2t"]
        to_text, to_video = np.zeros((2, *scores.shape), bool)
        to_text[tuple(g[f"{variant}/img2txt_pairs"].T)] = True
        to_video[tuple(g[f"{variant}/txt2img_pairs"].T[::-1])] = True
        for positives, theirs, ours in (
            (to_text, "img2txt", "vid2txt"),
            (to_video, "txt2img", "txt2vid"),
        ):
            scored, matches = (scores, positives) if ours == "vid2txt" else (scores.T, positives.T)
            asked = matches.any(1)
            ranks = retrieval_ranks(scored[asked], matches[asked])
            for k in (1, 5):
                expected = float(g[f"{variant}/{theirs}_r{k}"])
                assert round(recall_at(ranks, k), 2) == expected, (variant, theirs, k)
        if to_text.any(1).all() and (to_text == to_video).all():
            names = retrieval_metrics(scores, to_text)
            assert round(names["vid2txt_r5"], 2) == float(g[f"{variant}/img2txt_r5"])
            assert round(names["txt2vid_r1"], 2) == float(g[f"{variant}/txt2img_r1"])


def naive_rank(scores: np.ndarray, positives: np.ndarray) -> float:
    """Middle of the places that a shuffled sort could give the best positive."""
    best = max(score for score, match in zip(scores, positives, strict=True) if match)
    others = [score for score, match in zip(scores, positives, strict=True) if not match]
    first = sum(score > best for score in others)
    last = first + sum(score == best for score in others)
    return (first + last) / 2


@st.composite
def queries(draw):
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 9)))
    few_values = st.integers(-3, 3).map(float)
    scores = draw(hnp.arrays(np.float64, shape, elements=few_values))
    positives = draw(hnp.arrays(bool, shape))
    positives[np.arange(shape[0]), draw(st.integers(0, shape[1] - 1))] = True
    return scores, positives


@settings(deadline=None)
@given(queries())
def test_ranks_equal_the_naive_ones(query):
    scores, positives = query
    expected = [naive_rank(*row) for row in zip(scores, positives, strict=True)]
    np.testing.assert_array_equal(retrieval_ranks(scores, positives), expected)


@settings(deadline=None)
@given(queries(), st.randoms(use_true_random=False))
def test_order_of_candidates_does_not_matter(query, random):
    scores, positives = query
    order = list(range(scores.shape[1]))
    random.shuffle(order)
    ranks = retrieval_ranks(scores, positives)
    np.testing.assert_array_equal(retrieval_ranks(scores[:, order], positives[:, order]), ranks)


@pytest.mark.parametrize("count", [2, 3, 20])
def test_constant_similarity_is_no_hit(count):
    metrics = retrieval_metrics(np.zeros((count, count)), np.eye(count, dtype=bool))
    assert metrics["vid2txt_r1"] == metrics["txt2vid_r1"] == 0
    assert metrics["vid2txt_median_rank"] == (count + 1) / 2
    if count > 19:
        assert metrics["vid2txt_r5"] == metrics["txt2vid_r5"] == 0


def test_perfect_similarity_is_always_a_hit():
    metrics = retrieval_metrics(np.eye(11), np.eye(11, dtype=bool))
    assert {value for name, value in metrics.items() if "median" not in name} == {100.0}
    assert metrics["txt2vid_median_rank"] == 1


def test_ties_take_the_middle_place():
    scores = np.array([[3.0, 1.0, 1.0, 1.0, 0.0]])
    positives = np.array([[False, False, True, False, False]])
    np.testing.assert_array_equal(retrieval_ranks(scores, positives), [2.0])


def test_several_ground_truths_count_by_the_best():
    scores = np.array([[0.1, 0.9, 0.5, 0.4]])
    positives = np.array([[True, False, True, False]])
    np.testing.assert_array_equal(retrieval_ranks(scores, positives), [1.0])


def test_nan_is_an_error_that_names_the_query():
    scores = np.eye(4)
    scores[2, 1] = np.nan
    with pytest.raises(ValueError, match="query 2"):
        retrieval_metrics(scores, np.eye(4, dtype=bool))


def test_a_query_without_a_positive_is_an_error():
    positives = np.eye(4, dtype=bool)
    positives[3] = False
    with pytest.raises(ValueError, match="query 3 has no positive"):
        retrieval_ranks(np.eye(4), positives)


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 5))
@settings(deadline=None)
def test_chance_is_that_of_a_random_order(candidates, k, seed):
    rng = np.random.default_rng(seed)
    positives = rng.random((3, candidates)) < 0.2
    positives[np.arange(3), rng.integers(candidates, size=3)] = True
    orders = np.array([rng.permutation(candidates) for _ in range(2000)])
    found = (positives[:, orders[:, :k]]).any(2).mean() * 100
    assert chance_recall(positives, k) == pytest.approx(found, abs=4)


@pytest.mark.parametrize(
    ("hits", "queries", "low", "high"),
    [(0, 10, 0.0, 27.75), (5, 10, 23.66, 76.34), (10, 10, 72.25, 100.0), (81, 263, 25.53, 36.62)],
)
def test_interval_of_a_recall_is_wilson_s(hits, queries, low, high):
    """The last is the example of Newcombe, Statistics in Medicine 17 (1998), table I."""
    ranks = np.where(np.arange(queries) < hits, 0.0, 99.0)
    assert recall_interval(ranks, 5) == pytest.approx((low, high), abs=0.01)


@pytest.mark.parametrize(
    ("name", "lower"),
    [
        ("txt2vid_r1", False),
        ("probing-ucf101/top1", False),
        ("detection-ava/map", False),
        ("answer_accuracy", False),
        ("answer_loss", True),
        ("vid2txt_median_rank", True),
        ("retrieval-msrvtt/txt2vid_median_rank_dual_softmax", True),
        ("scaling-activitynet/16/seconds", True),
        ("scaling-activitynet/16/memory_mib", True),
    ],
)
def test_ranks_losses_and_costs_are_best_where_they_are_lowest(name, lower):
    assert lower_is_better(name) is lower
