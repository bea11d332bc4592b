"""The fit of the odds by which pieces are joined: what it learns from, and what it finds."""

from __future__ import annotations

import numpy as np
import pytest

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


def test_the_second_round_learns_from_what_the_first_one_meets(monkeypatch):
    """Of the given sequences alone: one that is left out tells nothing in either round."""
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.normal(size=(400, 3)), rng.random(400) < 0.5, np.ones(400)])
    first, met = [rows[:100], rows[100:200]], iter([rows[200:300], rows[300:]])
    asked = []

    def examples(tubes, inside, weights, bias):
        asked.append((tubes, *weights, bias))
        return next(met)

    monkeypatch.setattr(tube_odds, "examples", examples)
    nothing = np.zeros((1, 1, 1), np.int64)
    tubes = tubes_of(nothing, np.zeros((1, 1, 1, 3)), [])
    sequences = [
        tube_odds.Pieces(name, nothing, tubes, np.zeros(1), nothing.astype(np.int32))
        for name in "ab"
    ]
    weights, bias = tube_odds.fit_twice(sequences, first)
    once = tube_odds.fit(first)
    assert asked == [(tubes, *once[0], once[1])] * 2
    both = tube_odds.fit(
        [rows[[*range(100), *range(200, 300)]], rows[[*range(100, 200), *range(300, 400)]]]
    )
    np.testing.assert_allclose((*weights, bias), (*both[0], both[1]))


def test_what_cannot_be_fitted_is_told(tmp_path, monkeypatch, capsys):
    for name in ("camel", "dog"):
        for kind in ("frames", "masks"):
            (tmp_path / name / kind).mkdir(parents=True)
            (tmp_path / name / kind / "0.png").touch()
    chosen = tube_odds.chosen_sequences(tmp_path, ["dog", "camel", "dog"])
    assert [one.name for one in chosen] == ["camel", "dog"]
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    with pytest.raises(SystemExit) as ended:
        tube_odds.main([])
    assert ended.value.code == 2 and "set TRAJVIT_TEST_DATA" in capsys.readouterr().err
    for names, reason in (
        ("dog,camle", "no sequence 'camle': did you mean 'camel'"),
        ("dog,dog", "name two sequences or more"),
    ):
        with pytest.raises(ValueError, match=reason):
            tube_odds.main([f"--davis={tmp_path}", f"--sequences={names}"])
