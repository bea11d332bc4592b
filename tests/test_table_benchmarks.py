"""What the tables of the comparison and of the ablations rest on: rows, errors, differences."""

from __future__ import annotations

import dataclasses
import itertools
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ablations, comparison
from benchmarks.parts import paired, table_text, table_truth
from benchmarks.parts.table_costs import StepCost
from benchmarks.parts.table_rows import Finished, Ledger, unfinished
from benchmarks.parts.table_text import curves, lines_of, replace_block, table
from trajvit_jax import config as configs
from trajvit_jax.models.settings import ModelSettings, ToMeSettings

ROOT = Path(__file__).parents[1]


def finished(row, seed, of, **changed):
    values = {
        "name": row.name,
        "seed": seed,
        "made_of": row.made_of(),
        "commits": ("abc",),
        "steps": 2,
        "parameters": 10,
        "tokens": (12.0, 12.0),
        "dropped": 0.0,
        "minutes": 1.0,
        "clips": {"world": {"train": "a", "test": "b"}},
        "contents": {"world": {"train": "c", "test": "d"}},
        "owners": {"world": tuple(range(len(of)))},
        "devices": ("cpu",),
        "learned": ((1, 10.0), (2, 20.0)),
        "loss": 1.5,
        "ranks": {"world": {"txt2vid": tuple(of), "vid2txt": tuple(of)}},
    }
    return Finished(**values | changed)


@pytest.fixture
def rows(tmp_path):
    """Two rows of the world alone."""
    return comparison.rows(["trajvit", "vit3d"], tmp_path, real=False)


def test_a_row_is_not_trained_again_unless_what_made_it_changes(rows, tmp_path):
    path = tmp_path / "rows.jsonl"
    ledger = Ledger(path)
    assert [(row.name, seed) for row, seed in unfinished(ledger, rows, (0, 1))] == [
        ("trajvit", 0),
        ("vit3d", 0),
        ("trajvit", 1),
        ("vit3d", 1),
    ]
    ledger.add(finished(rows[0], 0, [0, 7.5]))
    again = Ledger(path)
    assert again.find(rows[0], 0) == finished(rows[0], 0, [0, 7.5])
    assert [(row.name, seed) for row, seed in unfinished(again, rows, (0,))] == [("vit3d", 0)]
    other = comparison.rows(["trajvit"], tmp_path, real=False, steps=7)
    assert again.find(other[0], 0) is None
    # Made of something else, it is another row; made of the same, it takes the older one's place.
    again.add(finished(other[0], 0, [1]))
    assert Ledger(path).find(rows[0], 0) and Ledger(path).find(other[0], 0)
    again.add(finished(other[0], 0, [2]))
    assert len(path.read_text().splitlines()) == 2
    assert Ledger(path).find(other[0], 0).ranks["world"]["txt2vid"] == (2,)


def _add_rows(path, begin, number):
    from benchmarks.parts.table_rows import Ledger

    [row] = comparison.rows(["trajvit"], path.parent, real=False)
    ledger = Ledger(path)
    begin.wait()
    for seed in range(8):
        ledger.add(finished(row, 8 * number + seed, [0]))


def test_processes_that_add_rows_at_once_lose_none(tmp_path):
    path, context = tmp_path / "rows.jsonl", multiprocessing.get_context("fork")
    begin = context.Barrier(2)
    adding = [context.Process(target=_add_rows, args=(path, begin, n)) for n in range(2)]
    for process in adding:
        process.start()
    for process in adding:
        process.join(60)
    assert len(path.read_text().splitlines()) == 16


def test_rows_of_other_clips_do_not_stand_in_one_table(rows, tmp_path):
    ledger = Ledger(tmp_path / "rows.jsonl")

    def text():
        return table(lines_of(rows, comparison.MODELS, (0, 1), ledger, {}, reference="trajvit"))

    ledger.add(finished(rows[0], 0, [0]))
    ledger.add(finished(rows[1], 0, [0], clips={"world": {"train": "a", "test": "z"}}))
    with pytest.raises(ValueError, match=r"trajvit and vit3d .* clips of world, split test"):
        text()
    # A clip that could be cut in one way may not be in another.
    ledger.add(finished(rows[1], 0, [0], clips={"world": {"train": "z", "test": "b"}}))
    text()
    ledger.add(finished(rows[1], 1, [0]))
    with pytest.raises(ValueError, match=r"vit3d and vit3d .* clips of world, split train"):
        text()
    # Cut anew, the same clips may differ in a pixel: they count, and the table tells.
    again = finished(rows[1], 0, [0], commits=("abd", "abe"), contents={"world": {"train": "z"}})
    ledger.add(again)
    said = text().splitlines()[-1]
    assert said.startswith(
        "Trained at abc, abd, abe; runs: 3 on cpu. Seeds read records that differ"
    )
    assert said.endswith(": ViT3D.")


def test_what_makes_a_row_has_no_paths_but_all_settings(rows, tmp_path):
    elsewhere = comparison.rows(["trajvit"], tmp_path / "elsewhere", real=False)
    assert elsewhere[0].made_of() == rows[0].made_of()
    real = comparison.rows(["trajvit"], tmp_path, real=True)
    fewer = dataclasses.replace(rows[0], data=rows[0].data | {"train": 5})
    hashes = {one.made_of() for one in (*rows, *real, fewer)}
    assert len(hashes) == 4


def test_settings_of_other_models_make_no_other_row(tmp_path):
    def hashes(arguments):
        row = comparison.table_row(
            "a", arguments, "trajectories", tmp_path, sources=("world",), steps=None, quick=False
        )
        return row.made_of()

    assert hashes("model=tome") == hashes("model=tome,tokens=5,width=2")
    assert hashes("model=automerge") != hashes("model=automerge,tokens=5")


def test_what_settings_say_leaves_out_what_is_as_ever():
    model = ModelSettings(frames=8, tome=ToMeSettings(merged=3))
    assert configs.changed(model) == {"frames": 8, "tome": {"merged": 3}}
    assert configs.changed([ModelSettings(), 4]) == [{}, 4]


def test_rows_that_both_tables_have_are_the_same_rows(tmp_path):
    own = comparison.rows(list(comparison.MODELS), tmp_path, real=True)
    assert len({row.made_of() for row in own}) == len(own)
    shared = {row.name: row.made_of() for row in own}
    others = ablations.rows(list(ablations.ABLATIONS), tmp_path, real=True, steps=None)
    for row in others:
        if row.name in shared:
            assert row.made_of() == shared.pop(row.name)
    assert "trajvit" not in shared and "tracking_only" not in shared
    assert len({row.made_of() for row in others}) == len(others)


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"name": "trajvit"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 1"):
        Ledger(path)


def test_errors_over_seeds():
    mean = paired.over_seeds([10.0, 12.0, 14.0])
    assert (mean.value, mean.error) == (12.0, pytest.approx(2 / 3**0.5))
    assert str(mean) == "12.0 ± 1.2" and str(paired.over_seeds([10.0])) == "10.0"


def answers(hits):
    """Of one way to ask, a query a clip: hits[seeds, clips]."""
    hits = np.asarray(hits, float)[None]
    return paired.Answers(hits, np.ones((1, hits.shape[-1])))


def test_the_bootstrap_agrees_with_the_formula_of_its_variance():
    rng = np.random.default_rng(0)
    ours, others = rng.random((2, 1, 400)) < np.array([0.5, 0.3])[:, None, None]
    found = paired.bootstrap([answers(ours)], [answers(others)])
    difference = 100 * (ours.mean(0) - others.mean(0))
    assert found.value == pytest.approx(difference.mean())
    error = difference.std() / 400**0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    # One seed tells nothing of how much seeds differ.
    assert found.low > 0 and not found.certain and str(found).endswith("clips alone")


def test_the_interval_covers_how_much_seeds_differ():
    rng = np.random.default_rng(0)
    # All clips alike: seeds alone vary, as fractions of right answers.
    ours, others = (rng.random((20, 1)).repeat(50, 1) for _ in range(2))
    found = paired.bootstrap([answers(ours)], [answers(others)])
    error = 100 * np.sqrt(sum(of[:, 0].var(ddof=1) / 20 for of in (ours, others)))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * error, rel=0.05)
    same = paired.bootstrap([answers(ours)], [answers(ours)])
    assert same.value == 0 and same.low < 0 < same.high and not same.certain
    assert paired.bootstrap([answers(ours + 1)], [answers(others)]).certain


def test_three_seeds_cover_a_model_s_difference_from_itself():
    rng, covered = np.random.default_rng(0), 0
    for trial in range(100):
        models = []
        clips = rng.random(100)
        for _ in range(2):
            skill = 0.3 + 0.05 * rng.standard_normal((3, 1))
            models.append(answers((clips + rng.random((3, 100))) / 2 < skill))
        found = paired.bootstrap(*([model] for model in models), resamples=500, seed=trial)
        covered += found.low <= 0 <= found.high
    assert covered >= 88


def test_a_clip_is_drawn_with_all_its_queries():
    rng = np.random.default_rng(0)
    hits = rng.random((2, 3, 300)) < 0.4
    one, other = (answers(of) for of in hits)
    # Asked the same both ways, nothing more is known.
    twice = [paired.Answers(of.hits.repeat(2, 0), of.queries.repeat(2, 0)) for of in (one, other)]
    assert paired.bootstrap([twice[0]], [twice[1]]) == paired.bootstrap([one], [other])
    # Asked anew, more is.
    fresh = [
        paired.Answers(np.concatenate([of.hits, rng.random((1, 3, 300)) < 0.4]), np.ones((2, 300)))
        for of in (one, other)
    ]
    wide, narrow = (
        found.high - found.low
        for found in (
            paired.bootstrap([one], [other]),
            paired.bootstrap([fresh[0]], [fresh[1]]),
        )
    )
    assert narrow < 0.85 * wide


def test_the_bootstrap_is_paired_and_counts_each_source_once():
    # Both models answer the same queries right: no draw of clips can part them.
    same = answers([np.arange(50) % 3 == 0])
    assert paired.bootstrap([same], [same]) == paired.Difference(0.0, 0.0, 0.0, False)
    ones, zeros, many = (answers(x) for x in (np.ones((1, 4)), np.zeros((1, 4)), np.ones((1, 400))))
    both = paired.bootstrap([ones, many], [zeros, many])
    assert both.value == pytest.approx(50)
    with pytest.raises(ValueError, match="other questions"):
        paired.bootstrap([ones], [many])


def test_rank_correlation_is_spearman_s():
    assert paired.rank_correlation([1, 2, 3, 10], [0, 1, 5, 6]) == pytest.approx(1)
    assert paired.rank_correlation([1, 2, 3, 10], [9, 1, 0, -6]) == pytest.approx(-1)
    # By the formula for ranks 1 2.5 2.5 4 and 1 2 3 4.
    assert paired.rank_correlation([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9486833)
    assert np.isnan(paired.rank_correlation([1, 1], [1, 2]))


def test_queries_are_counted_at_their_clip(rows):
    ranks = {"world": {"txt2vid": (0, 9), "vid2txt": (9, 4, 0)}}
    row = finished(rows[0], 0, [0], ranks=ranks, owners={"world": (2, 2)})
    hits, asked = row.by_clip("world", 5)
    assert hits.tolist() == [[0, 0, 1], [0, 1, 1]] and asked.tolist() == [[0, 0, 2], [1, 1, 1]]


def test_the_table_has_recalls_of_all_seeds_and_differences_from_its_reference(rows, tmp_path):
    ledger = Ledger(tmp_path / "rows.jsonl")
    for seed, ranks in enumerate(([0, 4, 5, 9], [0, 1, 2, 3])):
        ledger.add(finished(rows[0], seed, ranks))
    ledger.add(finished(rows[1], 0, [5, 6, 7, 8], devices=("NVIDIA H200",)))
    lines = lines_of(rows, comparison.MODELS, range(3), ledger, {}, reference="trajvit")
    assert [line.seeds for line in lines] == [2, 1]
    assert lines[0].recalls["world txt2vid"].value == 75 and lines[0].average.value == 75
    assert lines[1].differences["mean"].value == -75 and not lines[0].differences
    # Its own seed is a single one: the interval covers clips alone.
    assert not lines[1].differences["mean"].seeds
    text = table(lines).splitlines()
    assert "75.0 ± 25.0" in text[2] and text[3].startswith("| ViT3D")
    assert len({len(line) for line in text[:-2]}) == 1
    assert text[-1] == "Trained at abc; runs: 1 on NVIDIA H200, 2 on cpu."
    assert "clips and seeds" in text[0] and "clips alone" in text[3]
    assert "a step" not in text[0]
    costs = {
        row.name: StepCost(made_of, 0.25, 120.0, "1 cpu", "abc")
        for row, made_of in zip(rows, (rows[0].made_of(), "of other settings"), strict=False)
    }
    lines = lines_of(rows, comparison.MODELS, range(3), ledger, costs, reference="trajvit")
    costly = [line.replace(" ", "") for line in table(lines).splitlines()]
    assert "|GFLOP|sastep|MBastep|" in costly[0]
    assert "|0.25|120|" in costly[2] and "|-|-|" in costly[3]
    curve = [line.replace(" ", "") for line in curves(lines).splitlines()]
    assert curve[0] == "|model|after1|after2|lastloss|"
    assert curve[2] == "|TrajViT|10.0±0.0|20.0±0.0|1.50|"
    # Without the row that they are from, there are no differences.
    [line] = lines_of(rows[1:], comparison.MODELS, range(3), ledger, {}, reference="trajvit")
    assert not line.differences and line.like is None
    none = lines_of(rows, comparison.MODELS, (7,), ledger, {}, reference="trajvit")
    assert "no row" in table(none)


def test_differences_are_of_each_source_and_at_like_cost(tmp_path):
    names = ["trajvit", "trajvit_wide", "vivit"]
    rows, ledger = comparison.rows(names, tmp_path, real=True), Ledger(tmp_path / "rows.jsonl")
    for row, hits in zip(rows, (0, 1, 3), strict=True):
        own = [0.0] * hits + [9.0] * (4 - hits)
        for seed in range(2):
            ranks = {
                source: dict.fromkeys(("txt2vid", "vid2txt"), tuple(of))
                for source, of in (("exercises", own), ("world", [9.0] * 4))
            }
            owners = dict.fromkeys(ranks, tuple(range(4)))
            clips = {source: {"train": "a", "test": "b"} for source in ranks}
            found = finished(row, seed, [0], ranks=ranks, owners=owners, clips=clips)
            ledger.add(found)
    lines = lines_of(
        rows, comparison.MODELS, range(2), ledger, {}, reference="trajvit", like=comparison.LIKE
    )
    vivit = lines[2]
    values = {name: own.value for name, own in vivit.differences.items()}
    assert values == {"exercises": 75, "world": 0, "mean": 37.5}
    # By its cost, the wide one is nearer than the other.
    assert lines[0].gflops < lines[1].gflops and vivit.like.gflops == lines[1].gflops
    assert vivit.like.difference.value == 25 and lines[1].like is None
    # While one of them is missing, the other is no row of like cost.
    seeds, of = range(2), {"reference": "trajvit", "like": comparison.LIKE}
    few = lines_of([rows[0], rows[2]], comparison.MODELS, seeds, ledger, {}, **of)
    assert few[1].like is None and few[1].differences


def test_flops_follow_the_tokens_that_clips_have(tmp_path):
    by_name = {
        row.name: row.settings(0).model
        for row in comparison.rows(["trajvit", "vit3d", "rlt"], tmp_path, real=True)
    }
    few, many = (table_text.flops(by_name["trajvit"], n) for n in (10, 100))
    assert few < many < table_text.flops(by_name["vit3d"], 196)
    assert table_text.flops(by_name["rlt"], 80) < table_text.flops(by_name["vit3d"], 196)


def test_a_table_takes_its_place_on_a_page(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- one -->\nold\n<!-- end of one -->\nafter\n")
    replace_block(page, "one", r"new \1")
    replace_block(page, "one", r"newer \1")
    said = page.read_text()
    assert said == "before\n<!-- one -->\n\nnewer \\1\n\n<!-- end of one -->\nafter\n"
    with pytest.raises(ValueError, match="<!-- two -->"):
        replace_block(page, "two", "")


def test_spoilt_truth_is_as_wrong_as_it_says():
    labels = np.tile(np.arange(1, 5, dtype=np.uint16).repeat(8), (6, 4, 1))
    rng = np.random.default_rng(0)
    same = table_truth.spoil(labels, table_truth.SPOILT["truth"], rng)
    assert np.array_equal(same, labels)
    cut = table_truth.spoil(labels, table_truth.SPOILT["truth_cut"], rng)
    assert all(not set(one.flat) & set(other.flat) for one, other in itertools.pairwise(cut))
    # Within a frame nothing changes but names.
    assert all(len(np.unique(frame)) == 4 for frame in cut)
    switched = table_truth.spoil(labels, table_truth.SPOILT["truth_switched"], rng)
    assert 4 < len(np.unique(switched)) < len(np.unique(cut))
    swapped = table_truth.spoil(labels, table_truth.SPOILT["truth_swapped50"], rng)
    # As many trajectories as before, of the same sizes in each frame, but of other places.
    assert set(np.unique(swapped)) == {1, 2, 3, 4} and not np.array_equal(swapped, labels)
    assert all((np.bincount(frame.flat)[1:] == 32).all() for frame in swapped)
    shifted = table_truth.spoil(labels, table_truth.SPOILT["truth_shifted"], rng)
    assert set(np.unique(shifted)) == {1, 2, 3, 4} and not np.array_equal(shifted, labels)


def test_recall_is_set_against_tracking_error(tmp_path):
    names = ["world_truth", "world_swapped", "world_cut"]
    chosen, ledger = [], Ledger(tmp_path / "rows.jsonl")
    for name, rank in zip(names, ([0, 0], [0, 9], [9, 9]), strict=True):
        [row] = ablations.rows([name], tmp_path, real=False, steps=None)
        chosen.append(row)
        ledger.add(finished(row, 0, rank))
    wrong = {
        name: table_truth.TrackingError(lost, 10 * lost)
        for name, lost in zip(names, (0.0, 0.3, 0.2), strict=True)
    }
    text = ablations.tables(chosen, (0,), ledger, wrong)["trajectories"]
    assert "| tube lost | switches |" in text and "|      0.30 |      3.0 |" in text
    assert "over 3 rows: with the part of tubes that is lost -0.50" in text
    assert "with the number of tokens +nan" in text
    # A row whose error is not known is not lost silently.
    unknown = {name: wrong[name] for name in names[:2]}
    chosen += ablations.rows(["trajvit"], tmp_path, real=False, steps=None)
    ledger.add(finished(chosen[-1], 0, [0, 0]))  # which is in the other tables alone
    text = ablations.tables(chosen, (0,), ledger, unknown)
    rows = [line for line in text["paper"].splitlines() if line.startswith("|")]
    assert len(rows) == 3 and rows[-1].startswith("| TrajViT |  5, 6 |")
    text = text["trajectories"]
    assert "left out as the error of their trajectories is not known: world_cut." in text


def test_costs_are_measured_where_the_records_are_made(capsys):
    for other in ("--made", "--table"):
        with pytest.raises(SystemExit):
            comparison.parse(["--costs", other])
        assert "give it alone" in capsys.readouterr().err


def test_the_kept_rows_of_the_docs_are_those_of_the_tables():
    """Settings that are changed later would orphan finished rows without a word."""
    models, output = list(comparison.MODELS), Path("runs")
    rows = comparison.rows(models, output, real=True)
    rows += ablations.rows(list(ablations.ABLATIONS), output, real=True, steps=None)
    known = {(row.name, row.made_of()) for row in rows}
    lines = (ROOT / "docs/comparison.jsonl").read_text("utf-8").splitlines()
    kept = [json.loads(line) for line in lines]
    assert kept and all(row["commits"] for row in kept)
    assert {(row["name"], row["made_of"]) for row in kept} <= known
