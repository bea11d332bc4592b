"""Which real clips are held out, and what the benchmark that trains on them says."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks import real_learning
from benchmarks.parts import captioned_clips, recall_scores
from tokenization.manifest import Entry, read_manifest
from trajvit_jax.evals.retrieval import Comparison


def clip(name: str, caption: str = "") -> Entry:
    return Entry(name, Path(f"{name}.mp4"), captions=(caption,))


def test_clips_of_one_video_and_versions_of_one_exercise_share_a_split():
    panda = [clip(f"video{i}.{k}") for i in range(40) for k in range(3)]
    parts = captioned_clips.splits("panda", panda)
    videos = [{entry.id.partition(".")[0] for entry in part} for part in parts.values()]
    assert all(videos) and not set.intersection(*videos)
    names = [f"lift {i}" for i in range(40)]
    versions = ["{}", "{} (male)", "{} v. 2", "{} (on ball) with dumbbell"]
    exercises = [
        clip(f"{i}-{k}", versions[k].format(name)) for i, name in enumerate(names) for k in range(3)
    ]
    parts = captioned_clips.splits("exercises", exercises)
    numbers = [{entry.id.partition("-")[0] for entry in part} for part in parts.values()]
    assert all(numbers) and not set.intersection(*numbers)


def test_the_split_depends_on_nothing_but_the_clip():
    entries = [clip(f"video{i}.0") for i in range(50)]
    held_out = {entry.id for entry in captioned_clips.splits("panda", entries)["test"]}
    fewer = captioned_clips.splits("panda", entries[::-2])
    assert {entry.id for entry in fewer["test"]} == held_out & {e.id for e in entries[::-2]}


def test_real_clips_are_split_without_overlap():
    root = Path(os.environ.get(captioned_clips.VARIABLE, ""))
    if not all((root / f"{name}.jsonl").is_file() for name in captioned_clips.GROUPS):
        pytest.skip(captioned_clips.MISSING)
    for name in captioned_clips.GROUPS:
        entries = read_manifest(root / f"{name}.jsonl")
        train, test = captioned_clips.splits(name, entries).values()
        assert len(train) + len(test) == len(entries)
        assert 0.15 < len(test) / len(entries) < 0.35
        captions = [{text for entry in part for text in entry.captions} for part in (train, test)]
        assert not set.intersection(*captions)


def test_scores_of_a_model_that_is_always_right_and_of_one_that_never_is():
    n = 20
    right = Comparison(np.eye(n, dtype=np.float32), np.eye(n, dtype=bool), ("",) * n)
    for row in recall_scores.scores(right, "trajvit", "panda", "test"):
        assert [recall.value for recall in row.recalls] == [100, 100, 100]
        assert [recall.chance for recall in row.recalls] == pytest.approx([5, 25, 50])
        assert all(recall.above_chance for recall in row.recalls)
        assert row.cells()["queries"] == "20 held out" and row.median_rank == 1
    wrong = right._replace(similarity=1 - right.similarity)
    for row in recall_scores.scores(wrong, "vit3d", "panda", "train"):
        assert [recall.value for recall in row.recalls] == [0, 0, 0]
        assert not any(recall.above_chance for recall in row.recalls)


def test_without_real_clips_the_full_run_says_what_is_missing(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    assert real_learning.main(["--output", str(tmp_path)]) == 2
    assert "exercises.jsonl and panda.jsonl" in capsys.readouterr().err


def test_a_folder_without_clips_is_not_the_same_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("TRAJVIT_TEST_DATA", str(tmp_path))
    (tmp_path / "exercises.jsonl").touch()
    with pytest.raises(ValueError, match=r"TRAJVIT_TEST_DATA=.*no .*panda\.jsonl"):
        captioned_clips.folder()
    (tmp_path / "panda.jsonl").touch()
    assert captioned_clips.folder() == tmp_path


@pytest.mark.slow
def test_the_quick_run_on_the_world_alone(monkeypatch, capsys, tmp_path):
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    monkeypatch.chdir(Path(__file__).parent.parent)
    assert real_learning.main(["--quick", "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.count("16 held out  ") == 4 and "world: 32 to train on, 16 held out" in said
    page = (tmp_path / "out" / "report.html").read_text("utf-8")
    assert page.count("<polyline") == 4 and "16 clips of world" in page
