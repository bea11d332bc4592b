"""The benchmarks of evaluation run, and their verdicts are those of their numbers."""

from __future__ import annotations

import dataclasses
import json
import types

import pytest

from benchmarks import evaluation, labelled_clips
from trajvit_jax.evals.class_lists import read_classes
from trajvit_jax.evals.results import Result, Value


def test_ranks_of_noisy_twins_are_first():
    found = evaluation.retrieval(50, width=64)
    assert found["vid2txt_median_rank"] == found["txt2vid_median_rank"] == 1
    assert found["peak_bytes"] > 1e6


@pytest.mark.parametrize(
    ("peak", "seconds", "code"), [(1e9, 9.0, 0), (3e9, 9.0, 1), (1e9, 999.0, 1)]
)
def test_bounds_are_told(monkeypatch, capsys, tmp_path, peak, seconds, code):
    retrieval = {"pairs": 9, "seconds": 1.0, "cpu_seconds": 1.0, "peak_bytes": peak}
    retrieval |= {"vid2txt_median_rank": 1.0, "txt2vid_median_rank": 1.0}
    probing = {"samples": 9, "seconds": seconds, "cpu_seconds": seconds}
    probing |= {"fast_step": 0.1, "plain_step": 0.4, "ratio": 4.0}
    answers = {"retrieval": retrieval, "probing": probing}
    monkeypatch.setattr(evaluation, "alone", lambda function, *_: answers[function.__name__])
    assert evaluation.main([f"--json={tmp_path / 'found.json'}"]) == code
    said = capsys.readouterr().out
    assert said.count("holds:") == 2 - code and said.count("FAILS:") == code
    assert json.loads((tmp_path / "found.json").read_text()) == answers


@pytest.mark.slow
def test_the_quick_run(capsys):
    assert evaluation.main(["--quick"]) == 0
    assert "2,000 x 2,000" in capsys.readouterr().out


def test_probing_is_judged_by_its_interval():
    def result(low: float, **changes):
        empty = {"str": "", "int": 0, "float": 0.0, "int | None": None}
        values = {
            field.name: empty.get(field.type, {} if field.type.startswith("Mapping") else ())
            for field in dataclasses.fields(Result)
        }
        values |= {"protocol": "probing", "dataset": "exercises", "model": "vit3d"}
        return Result(
            **values | {"metrics": {"top1": Value(40.0, low, 50.0)}, "train_seed": 2} | changes
        )

    shares = {"exercises": 20.0, "panda": 30.0}
    said = labelled_clips.verdict([result(25.0), result(1.0, dataset="panda")], shares)
    assert list(said.values()) == [True] and "ViT3D, seed 2" in next(iter(said))
    assert list(labelled_clips.verdict([result(19.0)], shares).values()) == [False]


def test_classes_of_the_held_out_clips_alone_are_classes(monkeypatch, tmp_path):
    labels = {"train": ["waist", None, "back"], "test": ["shoulders", "back"]}
    monkeypatch.setattr(
        labelled_clips,
        "open_records",
        lambda _, split: [types.SimpleNamespace(label=label) for label in labels[split]],
    )
    path = labelled_clips.class_list(tmp_path / "exercises")
    assert path == tmp_path / "exercises.classes.txt"
    assert list(read_classes(str(path))) == ["back", "shoulders", "waist"]


def test_without_clips_it_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    assert labelled_clips.main([f"--output={tmp_path}"]) == 2
    assert "exercises.jsonl and panda.jsonl" in capsys.readouterr().err
