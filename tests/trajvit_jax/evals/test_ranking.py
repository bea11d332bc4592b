"""Ranks in blocks are the ranks with everything in memory; the released evaluation; odd inputs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trajvit_jax.plain_retrieval import retrieval_metrics
from trajvit_jax.evals.ranking import rank_pairs
from trajvit_jax.evals.retrieval import Gallery, measure
from trajvit_jax.metrics import recall_at


def slow_ranks(scores, pairs):
    """For each row: the middle of the places that a shuffled sort could give its best partner."""
    ranks = []
    for row, own in enumerate(scores):
        mine = {int(text) for video, text in pairs if video == row}
        best = max(own[text] for text in mine)
        rivals = [score for text, score in enumerate(own) if text not in mine]
        above = sum(bool(score > best) for score in rivals)
        equal = sum(bool(score == best) for score in rivals)
        ranks.append(above + equal / 2)
    return ranks


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@st.composite
def galleries(draw):
    """Few different vectors, so that many similarities are equal."""
    v, t = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.integers(1, 3))
    videos = rng.integers(-2, 3, (v, width)).astype(np.float32)
    texts = rng.integers(-2, 3, (t, width)).astype(np.float32)
    pairs = [(i, int(rng.integers(t))) for i in range(v)]
    pairs += [(int(rng.integers(v)), j) for j in range(t)]
    pairs += [pairs[0]]  # named twice
    return videos, texts, np.array(pairs)


@settings(deadline=None, max_examples=200)
@given(galleries(), st.integers(1, 9))
def test_ranks_are_the_slow_ones_whatever_the_blocks(gallery, block):
    videos, texts, pairs = gallery
    found = rank_pairs(videos, texts, pairs, block=block)
    scores = videos @ texts.T
    np.testing.assert_array_equal(found.of_videos, slow_ranks(scores, pairs))
    np.testing.assert_array_equal(found.of_texts, slow_ranks(scores.T, pairs[:, ::-1]))


@settings(deadline=None)
@given(galleries(), st.integers(1, 9), st.sampled_from([0.05, 0.5, 3.0]))
def test_dual_softmax_weighs_by_how_well_the_query_suits_the_candidate(gallery, block, temperature):
    rng = np.random.default_rng(0)
    # No ties: rounding would settle them, and the plain formula rounds otherwise.
    videos, texts = (x + rng.normal(size=x.shape).astype(np.float32) for x in gallery[:2])
    pairs = gallery[2]
    found = rank_pairs(videos, texts, pairs, dual_softmax=temperature, block=block)
    scores = videos.astype(np.float64) @ texts.astype(np.float64).T
    for_videos = (scores * softmax(scores / temperature, 0)).astype(np.float32)
    for_texts = (scores * softmax(scores / temperature, 1)).astype(np.float32)
    np.testing.assert_array_equal(found.of_videos, slow_ranks(for_videos, pairs))
    np.testing.assert_array_equal(found.of_texts, slow_ranks(for_texts.T, pairs[:, ::-1]))


def test_blocks_give_the_metrics_of_the_released_evaluation(golden):
    """Similarities that were drawn at random become embeddings: videos times the unit matrix."""
    g = golden("retrieval_metrics")
    checked = 0
    for variant in ("one_to_one", "multi_text", "multi_video", "uneven"):
        scores = g[f"{variant}/scores_i2t"]
        videos, texts = scores, np.eye(scores.shape[1], dtype=np.float32)
        to_text = g[f"{variant}/img2txt_pairs"]
        to_video = g[f"{variant}/txt2img_pairs"][:, ::-1]
        pairs = np.unique(np.concatenate([to_text, to_video]), axis=0)
        assert {tuple(p) for p in to_text} <= {tuple(p) for p in pairs}
        found = rank_pairs(videos, texts, pairs, block=64)
        for ranks, theirs in ((found.of_videos, "img2txt"), (found.of_texts, "txt2img")):
            for k in (1, 5):
                expected = float(g[f"{variant}/{theirs}_r{k}"])
                assert round(recall_at(ranks, k), 2) == expected, (variant, theirs, k)
                checked += 1
    assert checked == 16


def test_duplicates_far_apart_are_equal_to_the_last_bit():
    """A caption or a video that occurs twice is no better and no worse, wherever it stands."""
    rng = np.random.default_rng(0)
    videos = rng.normal(size=(301, 256)).astype(np.float32)
    videos /= np.linalg.norm(videos, axis=1, keepdims=True)
    videos[250] = videos[3]
    texts = videos.copy()
    pairs = np.stack([np.arange(301), np.arange(301)], 1)
    for block in (301, 7 * 301, 301 * 301):
        found = rank_pairs(videos, texts, pairs, block=block)
        twins = np.isin(np.arange(301), (3, 250))
        np.testing.assert_array_equal(found.of_videos, np.where(twins, 0.5, 0.0))
        np.testing.assert_array_equal(found.of_texts, np.where(twins, 0.5, 0.0))


@settings(deadline=None)
@given(galleries())
def test_measured_metrics_are_those_of_the_dense_formula(gallery):
    videos, texts, pairs = gallery
    whole = Gallery(videos, texts, pairs, ("",) * len(texts))
    compared = whole.compared()
    dense = retrieval_metrics(compared.similarity, compared.positives)
    found = dict(measure(whole).values())
    assert {name: found[name] for name in dense} == dense
    assert (found["videos"], found["texts"]) == (len(videos), len(texts))


def test_dual_softmax_is_named():
    gallery = Gallery(np.eye(3), np.eye(3), np.stack([np.arange(3)] * 2, 1), ("", "", ""))
    named = dict(measure(gallery, dual_softmax=0.1).values())
    assert "vid2txt_r1_dual_softmax" in named and "vid2txt_r1" not in named


def test_embeddings_that_are_not_finite_are_named():
    videos = np.eye(4, dtype=np.float32)
    broken = videos.copy()
    broken[2, 1] = np.nan
    pairs = np.stack([np.arange(4)] * 2, 1)
    with pytest.raises(ValueError, match="the embedding of video 2 is not finite"):
        rank_pairs(broken, videos, pairs)
    with pytest.raises(ValueError, match="the embedding of caption 2 is not finite"):
        rank_pairs(videos, broken, pairs)
    with pytest.raises(ValueError, match="caption 3 has no partner"):
        rank_pairs(videos[:3], videos, pairs[:3])
