"""Models on the same samples: the paired bootstrap by a slow program, and what is not compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from trajvit_jax.evals import report
from trajvit_jax.evals.differences import difference, differences
from trajvit_jax.evals.results import Metric, Result, Value, read_result


def made(model, hits, *, checkpoint="0", **changes):
    empty = {"str": "", "int": 0, "float": 0.0, "int | None": None}
    values = {
        field.name: empty.get(field.type, {} if field.type.startswith("Mapping") else ())
        for field in dataclasses.fields(Result)
        if field.name not in ("format", "samples")
    }
    values |= {"model": model, "training": model, "checkpoint": checkpoint, "fingerprint": "f"}
    metric = Metric.percent("top1", np.array(hits, bool))
    return Result(
        **values | {"metrics": {"top1": Value(metric.value)}} | changes,
        samples={"top1": metric.parts},
    )


def test_the_interval_is_that_of_a_slow_program():
    rng = np.random.default_rng(0)
    videos = rng.integers(25, size=90)
    one, other = (rng.normal(size=90) + mean for mean in (0.4, 0.0))
    parts = [Metric.of_clusters("x", values, videos, 25).parts for values in (one, other)]
    value, low, high = difference([parts[0]], [parts[1]])
    assert value == pytest.approx(one.mean() - other.mean())
    drawn = []
    for _ in range(3000):
        own = np.concatenate([np.flatnonzero(videos == v) for v in rng.integers(25, size=25)])
        drawn.append((one[own] - other[own]).mean())
    assert (low, high) == pytest.approx(np.percentile(drawn, (2.5, 97.5)), abs=0.04)


def test_what_is_hard_for_both_parts_nobody():
    """Both know the same half, one knows a twentieth more."""
    hits = np.arange(400) % 2 == 0
    better = hits.copy()
    better[1:40:2] = True
    parts = [Metric.percent("x", own).parts for own in (better, hits)]
    value, low, high = difference([parts[0]], [parts[1]])
    assert value == pytest.approx(5.0) and 2.5 < low < value < high < 8
    assert difference([parts[0]], [parts[0]]) == pytest.approx((0, 0, 0), abs=1e-12)
    low, _ = Metric.percent("x", better).interval(draws=500, seed=0)
    _, high = Metric.percent("x", hits).interval(draws=500, seed=0)
    assert low < high  # unpaired, nothing could be told


def test_seeds_count_alike(annotations_unchecked):
    rng = np.random.default_rng(1)
    ones = [Metric.percent("x", rng.random(50) < 0.5) for _ in range(3)]
    others = [Metric.percent("x", rng.random(50) < 0.3) for _ in range(2)]
    value, low, high = difference([m.parts for m in ones], [m.parts for m in others])
    expected = np.mean([m.value for m in ones]) - np.mean([m.value for m in others])
    assert value == pytest.approx(expected) and low < value < high
    with pytest.raises(ValueError, match=r"\[49, 50\] samples cannot be paired"):
        difference([ones[0].parts], [others[0].parts[1:]])


def test_only_what_was_measured_alike_is_compared():
    hits = [True] * 9 + [False]
    one = made("trajvit", hits)
    [found] = differences([one, made("vit3d", [False] * 10)])
    assert (found.one, found.other) == ("trajvit (0)", "vit3d (0)")
    assert found.value == 90 and found.certain
    seeds = [one, made("trajvit", hits, checkpoint="1"), made("vit3d", hits)]
    [found] = differences(seeds)
    assert found.one == "trajvit (0, 2 seeds)" and not found.certain
    for changes in (
        {"fingerprint": "g"},
        {"frames": 8},
        {"settings": {"captions": "first"}},
        {"missing": [{"id": "a"}]},
    ):
        assert list(differences([one, made("vit3d", hits, **changes)])) == []
    assert list(differences([one])) == []
    # Another step of a run is no seed of it, and a checkpoint counts once: its later result.
    early = made("trajvit", [True] + [False] * 9, checkpoint="2", step=500)
    late = made("trajvit", [True] * 10, checkpoint="3", step=1000)
    other = made("vit3d", [False] * 10)
    told = {(own.one, own.other): own.value for own in differences([early, late, late, other])}
    assert told == {
        ("trajvit (2, step 500)", "trajvit (3, step 1000)"): -90,
        ("trajvit (2, step 500)", "vit3d (0)"): 10,
        ("trajvit (3, step 1000)", "vit3d (0)"): 100,
    }
    again = made("trajvit", [False] * 10, checkpoint="3", step=1000)
    assert [own.value for own in differences([late, again, other])] == [0]
    elsewhere = made("vit3d", hits, settings={"features": "other", "batch": 4, "draws": 10})
    assert len(list(differences([one, elsewhere]))) == 1


def test_the_report_tells_them(tmp_path, capsys):
    for model, hits in (("trajvit", [True] * 10), ("vit3d", [True] + [False] * 9)):
        made(model, hits).write(tmp_path / model / "evals" / "a.json")
    runs = [str(tmp_path / "trajvit"), str(tmp_path / "vit3d")]
    assert report.main([*runs, "--differences"]) == 0
    assert "| trajvit (0) | vit3d (0) | +90.00 (" in capsys.readouterr().out
    assert report.main([runs[0], "--differences"]) == 0
    assert "No two models were measured alike" in capsys.readouterr().out


def test_samples_lie_beside_the_result(tmp_path):
    path = tmp_path / "a.json"
    made("trajvit", [True, False]).write(path)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.json", "a.samples.npz"]
    np.testing.assert_array_equal(read_result(path).samples["top1"], [[100, 1], [0, 1]])
    assert "samples" not in path.read_text()
    dataclasses.replace(made("trajvit", [True]), samples={}).write(path)  # none of another's stay
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "a.samples.npz").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"a\.json is no result"):
        read_result(path)
