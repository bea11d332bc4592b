"""The fit of the odds by which pieces are joined: what it learns from, and what it finds."""

from __future__ import annotations

import numpy as np

from benchmarks import tube_odds
from tokenization.trackers.tubes import ODDS, tubes_of


def test_the_fit_finds_the_weights_that_made_the_labels():
    rng = np.random.default_rng(0)
    inputs = rng.normal(3, (1, 2, 0.5), (4000, 3))
    true = np.array([2.0, -1.0, 0.0])
    chance = 1 / (1 + np.exp(-(inputs - 3) @ true))
    one = rng.random(4000) < chance
    rows = np.column_stack([inputs, one, np.ones(4000)])
    weights, bias = tube_odds.fit([rows[:1000], rows[1000:]])
    # The ridge shrinks them alike.
    assert 0.5 < weights[0] / true[0] < 1.1
    np.testing.assert_allclose(weights / weights[0], true / true[0], atol=0.15)
    right = (inputs @ weights + bias > 0) == (chance > 0.5)
    assert right.mean() > 0.95


def test_examples_are_pairs_of_which_one_lies_in_the_object(monkeypatch):
    """Pieces 0 and 1 lie in it, 2 and 3 do not: the pair of these tells nothing."""
    monkeypatch.setattr(tube_odds, "_FEWEST", 4)
    labels = np.arange(4).repeat(5)[None, None] * np.ones((1, 3, 1), np.int64)
    tubes = tubes_of(labels, np.zeros((*labels.shape, 3)), [])
    inside = np.where(np.arange(4) < 2, tubes.volumes, 0.0)
    found = tube_odds.examples(tubes, inside, np.zeros(len(ODDS)), 0.0)
    assert found.shape == (2, len(ODDS) + 2)
    assert found[:, -2].tolist() == [1, 0]
    np.testing.assert_allclose(found[:, -1], 0.5)
    mixed = tube_odds.examples(tubes, inside * [1, 0.75, 0, 0], np.zeros(len(ODDS)), 0.0)
    np.testing.assert_allclose(mixed[:, -1], 0.25)
