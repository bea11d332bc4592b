"""Intervals, result files, and the report beside the paper's numbers."""

from __future__ import annotations

import collections
import dataclasses
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from trajvit_jax import config as configs
from trajvit_jax.config import to_settings
from trajvit_jax.convert.conversion import abstract_model
from trajvit_jax.convert.kinds import Layout
from trajvit_jax.convert.stored import Stored, write_stored
from trajvit_jax.evals import paper, report
from trajvit_jax.evals.command import trained_on
from trajvit_jax.evals.cut import made_by
from trajvit_jax.evals.loaded import Loaded
from trajvit_jax.evals.options import parser_of, settings_of
from trajvit_jax.evals.results import Measured, Metric, Result, Value, read_result, with_intervals
from trajvit_jax.evals.variant import ablation_of, size_of
from trajvit_jax.experiment import ExperimentSettings, note
from trajvit_jax.models.settings import (
    SIZES,
    ModelSettings,
    TokenLearnerSettings,
    TrajViTSettings,
    settings_of_fed,
)
from trajvit_jax.recipe import ENCODER_ABLATIONS

ROOT = Path(__file__).parents[3]


def result(**changes):
    values = {
        "protocol": "retrieval",
        "dataset": "msrvtt",
        "split": "test",
        "metrics": {"txt2vid_r5": Value(30.0, 25.0, 35.0)},
        "count": 99,
        "of": 100,
        "missing": [{"id": "a", "file": "a.mp4", "reason": "is empty"}],
        "frames": 16,
        "stored": 16,
        "views": 1,
        "seed": 0,
        "model": "trajvit",
        "checkpoint": "0" * 16,
        "source": "runs/a",
        "step": 7,
        "train_seed": 0,
        "training": "t",
        "train_records": ["data/panda4m"],
        "records": "data/msrvtt",
        "fingerprint": "f",
        "settings": {"captions": "all"},
        "notes": {},
        "interval": "95% bootstrap, 9 draws",
        "command": "python -m trajvit_jax.evals.retrieval",
        "commit": "c",
        "versions": {"jax": "1"},
        "devices": "1 cpu",
        "seconds": 1.5,
    }
    return Result(**values | changes)


# Intervals


def test_an_interval_is_that_of_the_mean_s_spread():
    rng = np.random.default_rng(0)
    values = rng.normal(size=400)
    low, high = Metric.mean("x", values).interval(draws=2000, seed=1)
    spread = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * spread, abs=0.2 * spread)
    assert high == pytest.approx(values.mean() + 1.96 * spread, abs=0.2 * spread)


def test_intervals_cover_what_they_say():
    """Of 200 draws of 60 samples, about 95% of the intervals hold the true share."""
    rng = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        low, high = Metric.percent("x", rng.random(60) < 0.3).interval(draws=200, seed=seed)
        held += low <= 30 <= high
    assert 180 <= held <= 198


def test_the_same_seed_gives_the_same_interval():
    metric = Metric.median("x", np.random.default_rng(0).normal(size=50))
    assert metric.interval(draws=50, seed=3) == metric.interval(draws=50, seed=3)
    assert metric.interval(draws=50, seed=3) != metric.interval(draws=50, seed=4)


def test_what_has_no_interval():
    measured = Measured([Metric("chance", 5.0), Metric.mean("one", np.array([3.0]))], 1)
    assert with_intervals(measured, draws=100, seed=0) == {"chance": Value(5.0), "one": Value(3.0)}
    assert Metric.mean("x", np.arange(3.0)).interval(draws=0, seed=0) is None
    assert dict(measured.values()) == {"chance": 5.0, "one": 3.0}


def test_no_hit_at_all_is_not_certainty():
    """Every draw of misses is a miss: a bootstrap would say 0 to 0."""
    low, high = Metric.percent("x", np.zeros(26, bool)).interval(draws=50, seed=0)
    assert low == 0 and 10 < high < 15
    low, high = Metric.percent("x", np.ones(26, bool)).interval(draws=50, seed=0)
    assert 85 < low < 90 and high == 100
    # Nine captions of one video are no more than the video.
    owner = np.zeros(9, np.int64)
    owner[8] = 1
    metric = Metric.of_clusters("x", np.full(9, 100.0), owner, 2, share=True)
    assert metric.interval(draws=50, seed=0)[0] < 40
    mean = Metric.mean("x", np.zeros(9), share=True)  # over videos of their clips
    assert mean.interval(draws=50, seed=0) == Metric.percent("x", np.zeros(9, bool)).interval(
        draws=50, seed=0
    )
    ranks = Metric.of_clusters("x", np.zeros(9), owner, 2, median=True)
    assert ranks.interval(draws=50, seed=0) == (0, 0)  # a rank is no share


# Files


def test_a_result_comes_back_as_it_was_written(tmp_path):
    result().write(tmp_path / "one.json")
    assert read_result(tmp_path / "one.json") == result()
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_numbers_that_are_not_finite_are_null(tmp_path):
    result(metrics={"map": Value(float("nan"))}).write(tmp_path / "one.json")
    assert json.loads((tmp_path / "one.json").read_text())["metrics"]["map"]["value"] is None
    assert str(read_result(tmp_path / "one.json").metrics["map"]) == "-"


@pytest.mark.parametrize("text", ["{}", "[1]", "no", '{"format": 1, "metrics": {}}'])
def test_a_file_that_is_no_result(tmp_path, text):
    (tmp_path / "one.json").write_text(text)
    with pytest.raises(ValueError, match=r"one\.json is no result of python -m trajvit_jax\.evals"):
        read_result(tmp_path / "one.json")


def test_a_result_is_told_with_what_it_is_of():
    said = result(stored=64, views=4, notes={"captions": "all"}).markdown()
    assert "| txt2vid_r5 |" in said and "30.00 (25.0 to 35.0)" in said
    for part in ("99 of 100", "0" * 16, "step 7", "16 frames of 64 stored, 4 views", "captions"):
        assert part in said


# Report


def test_runs_lie_beside_the_paper_s_numbers(tmp_path, capsys):
    for seed, value in ((0, 30.0), (1, 34.0)):
        own = result(
            metrics={"txt2vid_r5": Value(value, value - 5, value + 6)},
            train_seed=seed,
            checkpoint=f"{seed:016}",
        )
        own.write(tmp_path / f"seed{seed}" / "evals" / "retrieval.json")
    runs = [str(tmp_path / f"seed{seed}") for seed in (0, 1)]
    assert report.main([*runs, f"--output={tmp_path / 'table.md'}"]) == 0
    said = capsys.readouterr().out
    assert "32.00 (27.0 to 38.0; seeds 30.0 to 34.0)" in said and "| panda4m |" in said
    assert "31.7 (panda4m, Table 1)" in said and "panda8m" not in said
    assert "1 of 100 are missing, the first 'a': is empty" in said
    assert (tmp_path / "table.md").read_text() == said


def test_tokenlearner_beside_the_paper_s_detection_has_its_fuser():
    """Supplementary, section 9; without it its tokens are gathered in a way the paper has not."""
    of_ava = {"protocol": "detection", "dataset": "ava", "model": "token_learner"}
    settings = dict(paper.settings_of("detection", "ava"))
    plain, fused = (
        result(**of_ava, settings=settings, ablation=ablation) for ablation in ("none", "fuse")
    )
    assert report.paper_of(plain, "map") == "-"
    assert report.paper_of(fused, "map") == "9.1 (panda4m, Table 3)"
    given = dataclasses.replace(fused, settings=settings | {"boxes": "b.csv", "most_pairs": 50})
    assert report.paper_of(given, "map").endswith(
        "; boxes b.csv, the paper's ; most_pairs 50, the paper's 0"
    )
    model = ModelSettings(name="token_learner", token_learner=TokenLearnerSettings(fuse=True))
    assert ablation_of(model) == "fuse" and ablation_of(ModelSettings("token_learner")) == "none"


def test_seeds_without_an_interval_have_a_spread(tmp_path):
    made = [
        result(metrics={"x": Value(value)}, checkpoint=str(value)) for value in (1.0, 2.0, None)
    ]
    [row] = report.rows([(tmp_path, one) for one in made])
    assert row["value"] == "1.50 (seeds 1.0 to 2.0), of 2 seeds"


def test_seeds_of_other_settings_are_other_lines(tmp_path):
    one, two = result(), result(settings={"captions": "first"}, train_seed=1)
    made = report.rows([(tmp_path, one), (tmp_path, two)])
    assert [row["seeds"] for row in made] == ["1", "1"]


def test_settings_that_differ_are_told_where_they_do(tmp_path):
    same = {"views": 1, "classes": ""}
    of = (
        result(checkpoint="a", settings=same | {"epochs": 3}),
        result(checkpoint="b", settings=same | {"epochs": 30}),
        result(checkpoint="a", dataset="other", settings=same | {"epochs": 3}),
    )
    made = report.rows([(tmp_path / str(i), one) for i, one in enumerate(of)])
    assert [row["settings"] for row in made] == ["epochs 3", "epochs 30", "-"]
    assert "settings" not in report.rows([(tmp_path, of[0])])[0]


def test_scaling_tells_the_frames_of_each_metric(tmp_path):
    at = {f"{frames}/txt2vid_r5": Value(30.0, None, None) for frames in (8, 32)}
    made = report.rows([(tmp_path, result(protocol="scaling", metrics=at))])
    assert [row["frames x views"] for row in made] == ["8 x 1", "32 x 1"]


def test_settings_that_change_no_number_part_no_seeds(tmp_path):
    one = result(settings={"captions": "all", "features": "a", "batch": 8, "draws": 9, "frames": 0})
    two = result(
        settings={"captions": "all", "features": "b", "batch": 4, "draws": 8, "frames": 16},
        checkpoint="1" * 16,
        count=98,
    )
    [row] = report.rows([(tmp_path, one), (tmp_path, two)])
    assert (row["seeds"], row["n of m"]) == ("2", "98 to 99 of 100")
    both = [dataclasses.replace(own, protocol="scaling") for own in (one, two)]
    assert len(report.rows([(tmp_path, own) for own in both])) == 2  # seconds depend on the batch


def test_runs_of_other_trainings_are_no_seeds_of_one(tmp_path):
    one, two = result(), result(training="larger", checkpoint="1" * 16)
    assert [row["seeds"] for row in report.rows([(tmp_path, one), (tmp_path, two)])] == ["1", "1"]
    with pytest.raises(ValueError, match="comes twice for retrieval on msrvtt"):
        report.rows([(tmp_path, one), (tmp_path, one)])


def test_of_one_checkpoint_the_newest_result_counts(tmp_path):
    """As where it was measured again in other batches, and kept beside the older one."""
    for number, (name, value) in enumerate((("b", 1.0), ("a", 2.0))):
        path = tmp_path / "evals" / f"{name}.json"
        result(settings={"batch": number}, metrics={"x": Value(value)}).write(path)
        os.utime(path, (number, number))
    [row] = report.rows(report.find_results([str(tmp_path)]))
    assert (row["value"], row["seeds"]) == ("2.00", "1")


def test_records_tell_what_was_made_of_them(tmp_path):
    model = ModelSettings(encoder=SIZES["B"])
    assert ablation_of(model, made_by(tmp_path / "tokenization.json")) == "none"
    for tracker, name in (("patches", "tracking_only"), ("none", "segmentation_only")):
        text = json.dumps({"pipeline": {"tracker": tracker}})
        (tmp_path / "tokenization.json").write_text(text, "utf-8")
        assert ablation_of(model, made_by(tmp_path / "tokenization.json")) == name
    small = {"protocol": "classification", "dataset": "ssv2", "size": "B"}
    own = result(**small, ablation="tracking_only", train_records=["data/panda880k"])
    numbers = [one for one in paper.numbers() if one.model == "tracking_only"]
    assert {one.run for one in numbers} == {("trajvit", "B", "tracking_only")}
    assert "22.7" not in report.paper_of(own, "top1")


def test_what_a_run_started_from_was_trained_too(tmp_path, monkeypatch):
    """Images before videos: the paper's jointly trained models of patches."""
    monkeypatch.chdir(ROOT)

    def settings(config):
        return to_settings(ExperimentSettings, configs.load(f"configs/{config}"))

    images = tmp_path / "images"
    images.mkdir()
    note(images, settings("datacomp50m.py:model=vit"), "")
    (images / "checkpoints" / "000000100").mkdir(parents=True)
    run = settings(f"panda8m_from_images.py:initial={images}")
    model = abstract_model(ModelSettings())
    loaded = Loaded(model, None, "runs/a", settings=run)
    assert trained_on(loaded) == ["data/datacomp50m", "data/panda8m"]
    again = tmp_path / "again"
    again.mkdir()
    note(again, run, "")
    (again / "checkpoints" / "000000100").mkdir(parents=True)
    third = dataclasses.replace(run, initial=str(again))
    learned = ["data/datacomp50m", "data/panda8m", "data/panda8m"]
    assert trained_on(Loaded(model, None, "runs/a", settings=third)) == learned
    # The released program starts its text side from BERT; other weights make another model.
    write_stored(tmp_path / "bert", Stored({"x": np.zeros(1)}, ModelSettings(), Layout("bert")), {})
    text = dataclasses.replace(run, initial=str(tmp_path / "bert"))
    assert trained_on(Loaded(model, None, "runs/a", settings=text)) == ["data/panda8m"]
    for gone in ("weights/converted", "runs/moved_since"):
        alone = dataclasses.replace(run, initial=gone)
        assert trained_on(Loaded(model, None, "runs/a", settings=alone)) == [gone, "data/panda8m"]


def test_small_numbers_are_not_rounded_away():
    assert [str(Value(x)) for x in (0.00231, 0.0, 12.345, 1234.0)] == [
        "0.00231",
        "0",
        "12.35",
        "1,234",
    ]


def test_queries_of_one_video_are_drawn_together():
    """Two videos, one with nine captions that are all found: no draw has a share between."""
    hits, video = np.array([0.0] + [100.0] * 9), np.array([0] + [1] * 9)
    metric = Metric.of_clusters("x", hits, video, 2)
    assert metric.value == 90 and metric.samples == 2
    assert [metric.statistic(np.array(own)) for own in ([0, 0], [1, 1], [0, 1])] == [0, 100, 90]
    middle = Metric.of_clusters("x", hits, video, 2, median=True)
    assert middle.statistic(np.array([0, 0])) == 0 and middle.value == 100


def test_a_place_without_results(tmp_path, capsys):
    assert report.main([str(tmp_path)]) == 2
    assert "holds no results: run python -m trajvit_jax.evals.PROTOCOL" in capsys.readouterr().err
    result().write(tmp_path / "one.json")
    assert report.main([str(tmp_path / "one.json"), "--metric", "top1"]) == 2
    assert "no result has the metric top1" in capsys.readouterr().err


# The paper


def test_the_document_is_that_of_the_data():
    assert (ROOT / "docs" / "PAPER.md").read_text("utf-8") == paper.document(), (
        "python -m trajvit_jax.evals.paper --output=docs/PAPER.md"
    )


def test_every_number_of_the_tables_is_in_the_document():
    """As many as the paper prints, counted there: models times columns."""
    counts = {1: 7 * 8, 2: 7 * 3, 3: 6 + 7 * 4, 4: 2 * 12, 5: 4 * 3, 6: 11 * 3, 8: 4, 9: 7 * 3}
    counts |= {10: 2 * 3 * 8, 11: 2 * 2 * 8, 12: 2 + 4}
    found = collections.Counter(one.place for one in paper.numbers() if one.value is not None)
    assert found == {f"Table {number}": count for number, count in counts.items()}
    # And each in the row of its model, under its table.
    for section, block in zip(
        paper.document().split("\n## Table ")[1:], paper.blocks(), strict=True
    ):
        assert f"Table {section}".startswith(f"{block.place}: {block.title}")
        for model, values in block.rows.items():
            cells = " | ".join("-" if value is None else f"{value:g}" for value in values)
            assert f"\n| {model} | {cells} | " in section, (block.place, model)


def test_some_numbers_as_the_paper_prints_them():
    """Typed in a second time."""
    found = {(n.place, n.training, n.model, n.dataset, n.metric): n.value for n in paper.numbers()}
    for key, value in {
        ("Table 1", "panda4m", "tome", "msrvtt", "vid2txt_r5"): 55.31,
        ("Table 1", "panda4m", "rlt", "charades", "txt2vid_r5"): 13.4,
        ("Table 2", "panda4m", "token_learner", "ssv2", "top1"): 42.7,
        ("Table 3", "panda4m", "automerge", "ava", "map"): None,
        ("Table 3", "panda4m", "vivit", "youcook2_clips", "vid2txt"): 48.8,
        ("Table 4", "panda8m_datacomp50m", "trajvit", "mlvu", "accuracy"): 32.2,
        ("Table 5", "ablation880k", "tracking_only", "kinetics400", "top1"): 18.1,
        ("Table 6", "ablation880k", "hiera_backbone", "ssv2", "top1"): 18.3,
        ("Table 9", "panda4m", "rlt", "ucf101", "top1"): 33.7,
        ("Table 10", "panda8m", "vit3d", "vatex", "txt2vid_r5"): 40.59,
        ("Table 11", "panda8m_datacomp50m", "trajvit", "activitynet", "txt2vid_r5"): 53.57,
        ("Table 12", "datacomp50m", "vit", "coco", "txt2vid_r5"): 58.3,
    }.items():
        assert found[key] == value, key


def test_rows_are_as_long_as_their_heads():
    for block in paper.blocks():
        for model, values in block.rows.items():
            assert len(values) == len(block.columns), (block.place, model)


def config_of(block, dataset):
    """That a command of the document names, or ''."""
    words = paper.command_of(block, dataset).strip("`").split()
    return next((w.removeprefix("--config=") for w in words if w.startswith("--config=")), "")


def test_configs_and_commands_of_the_document_exist():
    checked = set()
    for block in paper.blocks():
        for dataset, _ in block.columns:
            path = config_of(block, dataset)
            if not path or block.protocol == "summary":
                continue
            checked.add(path)
            protocol = importlib.import_module(f"trajvit_jax.evals.{block.protocol}").PROTOCOL
            name, kind = protocol.name, protocol.settings
            given = parser_of(name, protocol.about, kind).parse_args(
                ["--workdir=a", "--records=b", f"--config={ROOT / path}"]
            )
            assert settings_of(name, kind, given).dataset == dataset
            file = ROOT / path.partition(":")[0]
            for word in paper.command_of(block, dataset).strip("`").split()[3:]:
                assert word.partition(":")[0] in file.read_text("utf-8"), word
            assert f"trajvit_jax.evals.{block.protocol} " in file.read_text("utf-8")
    files = {path.partition(":")[0] for path in checked}
    left = {
        f"configs/eval/{path.name}" for path in (ROOT / "configs" / "eval").glob("*.py")
    } - files
    assert left == {"configs/eval/activitynet_scaling.py"} and len(checked) == 15


def test_a_number_that_was_measured_in_another_way_says_so():
    theirs = "31.7 (panda4m, Table 1); 31.71 (panda4m, Table 10)"
    assert report.paper_of(result(), "txt2vid_r5") == theirs
    first = result(settings={"captions": "first"}, frames=8)
    assert report.paper_of(first, "txt2vid_r5") == (
        f"{theirs}; frames 8, the paper's 16; captions first, the paper's all"
    )
    ours = result(split="train", cut="classical + flow", train_cut="directsam + sam2")
    assert report.paper_of(ours, "txt2vid_r5") == (
        f"{theirs}; split train, the paper's is 'test' in configs/eval; "
        "trajectories by classical + flow, the paper's directsam + sam2"
    )


def test_the_paper_s_settings_are_those_of_the_configs():
    checked = 0
    for block in paper.blocks():
        for dataset, _ in block.columns:
            path = config_of(block, dataset)
            said = paper.settings_of(block.protocol, dataset)
            if not said:
                continue
            protocol = importlib.import_module(f"trajvit_jax.evals.{block.protocol}").PROTOCOL
            name, kind = protocol.name, protocol.settings
            given = ["--workdir=a", "--records=b", f"--config={ROOT / path}"]
            found = settings_of(name, kind, parser_of(name, "", kind).parse_args(given))
            own = dataclasses.asdict(found) | {"frames": found.frames or 16}
            for setting, value in said.items():
                assert own[setting] == value, (path, setting)
            checked += 1
    assert checked > 30


def test_trainings_are_told_apart_whatever_their_order():
    both = result(train_records=["data/panda8m", "data/datacomp50m"], dataset="activitynet")
    expected = "53.57 (panda8m_datacomp50m, Table 11)"
    assert report.paper_of(both, "txt2vid_r5").startswith(expected)
    turned = dataclasses.replace(both, train_records=both.train_records[::-1])
    assert report.paper_of(turned, "txt2vid_r5").startswith(expected)
    assert report.paper_of(result(train_records=["data/mine"]), "txt2vid_r5") == "-"
    assert report.paper_of(result(train_records=[]), "txt2vid_r5").count("(") == 6


def test_ablations_lie_beside_ablations():
    ssv2 = {"dataset": "ssv2", "protocol": "probing", "settings": {"views": 4}, "views": 4}
    small = ssv2 | {"train_records": ["data/panda880k"], "size": "B", "ablation": "none"}
    own = "22.7 (ablation880k, Table 5); 22.7 (ablation880k, Table 6)"
    assert report.paper_of(result(**small), "top1") == own
    changed = result(**small | {"ablation": "mean"})
    assert report.paper_of(changed, "top1") == "19.2 (ablation880k, Table 6)"
    patches = result(**small | {"model": "vit3d"})
    assert report.paper_of(patches, "top1") == "17.2 (ablation880k, Table 5)"
    segments = result(**small | {"ablation": "segmentation_only"})
    assert report.paper_of(segments, "top1") == "16.4 (ablation880k, Table 5)"
    for other in ({"size": "L"}, {"ablation": "other"}, {"train_records": ["data/panda880k_sam"]}):
        assert report.paper_of(result(**small | other), "top1") == "-"
    large = ssv2 | {"size": "L", "ablation": "none"}
    assert report.paper_of(result(**large), "top1") == "45.8 (panda4m, Table 2)"
    assert report.paper_of(result(**large | {"ablation": "mean"}), "top1") == "-"
    assert report.paper_of(result(**large | {"size": "B"}), "top1") == "-"


def test_a_model_s_size_and_ablation():
    fed = {"segmentation_only": settings_of_fed("segmentation_only")}
    for name, changes in (ENCODER_ABLATIONS | fed).items():
        model = ModelSettings(
            encoder=SIZES["B"],
            trajvit=to_settings(TrajViTSettings, {"max_trajectories": 9} | changes),
        )
        assert (size_of(model), ablation_of(model)) == ("B", name)
        assert ablation_of(dataclasses.replace(model, name="vit3d")) == "none"
    other = dataclasses.replace(model, encoder=dataclasses.replace(SIZES["B"], depth=3))
    assert size_of(other) == "768 x 3"
    other = ModelSettings(trajvit=TrajViTSettings(appearance="mean", position="none"))
    assert (size_of(other), ablation_of(other)) == ("L", "other")


def test_a_paper_s_row_has_one_number_a_run_can_stand_beside():
    own = dataclasses.replace(result(), dataset="ucf101", protocol="classification")
    assert report.paper_of(own, "top1") == "42.1 (panda4m, Table 9)"
    assert report.paper_of(dataclasses.replace(own, dataset="mine"), "top1") == "-"
