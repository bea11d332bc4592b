"""The extraction of records: all of them, in order, from any list of videos."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tokenization.extraction import SETTINGS, Grid, read, run
from tokenization import backends, pipeline, records, shards
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.extract import OutputError, extract
from tokenization.tubelets import count_tubelets


def test_every_entry_becomes_a_record_in_order(entries, tmp_path):
    summary = run(entries, tmp_path / "out")
    source = records.open_records(tmp_path / "out")
    assert [record.id for record in source] == ["a", "b", "c", "short", "still"]
    assert source[0].captions == ("one", "two") and source[0].label == "run"
    assert dict(source[0].extra) == {"views": 3}
    np.testing.assert_allclose(source[1].trajectories.frame_times, [0.3, 0.4, 0.5, 0.6], atol=0.11)
    boxes = source[2].boxes
    assert boxes is not None and boxes.labels == ("x",) and boxes.times.tolist() == [0.5]
    assert [len(record.frames) for record in source] == [4, 4, 4, 4, 1]
    assert (summary.videos, summary.frames, summary.trajectories) == (5, 17, 5 * 16)
    assert summary.repeated == 1 and summary.quarantine == () and summary.bad == 0
    assert summary.images == 1 and "1 record is an image, of one frame, among" in str(summary)
    assert summary.tubelets == 4 * count_tubelets(4) + count_tubelets(1) == 4 * 392 + 196
    assert "5 videos, 17 frames" in str(summary)
    assert "1 video with fewer frames than asked (short): the last one is repeated" in str(summary)


def test_paths_are_no_entries(tmp_path):
    """In a process of its own: here types are checked on the way in."""
    for entries in ("'a.mp4'", "['a.mp4']"):
        script = f"from tokenization.extract import extract; extract({entries}, '{tmp_path}/out')"
        line = [sys.executable, "-c", script]
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert "ValueError: extract takes entries, not paths: extract(read_entries(" in done.stderr
        assert not (tmp_path / "out").exists()


def test_images_alone_are_no_exception(entries, tmp_path):
    summary = run(entries[4:], tmp_path / "out")
    assert summary.images == 0 and "image" not in str(summary)


def test_absolute_paths_are_read(clips, tmp_path):
    path = clips.video("elsewhere/a.mp4")
    (clips.root / "lists").mkdir()
    summary = run(read(clips.root / "lists", [{"id": "a", "path": str(path)}]), tmp_path / "out")
    assert summary.videos == 1


def test_a_list_of_files_that_are_not_there_is_wrong_as_a_whole(clips, tmp_path):
    lines = [{"id": name, "path": f"{name}.mp4"} for name in "abc"]
    with pytest.raises(ValueError, match=rf"none of the 3 videos exists.* {clips.root}/a\.mp4"):
        run(read(clips.root, lines), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_output(entries, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out is a file; --output names the folder"):
        run(entries, tmp_path / "out")


def test_an_output_that_cannot_be_made_names_the_option(entries, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(
        NotADirectoryError, match=r"^\S*file/out cannot be written \(Not a .* another --output"
    ):
        run(entries, tmp_path / "file" / "out")


def test_entries_must_be_there_and_differ(entries, tmp_path):
    with pytest.raises(ValueError, match="no videos to extract"):
        run([], tmp_path / "out")
    with pytest.raises(ValueError, match="two entries have the same id"):
        run([entries[0], entries[0]], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("split", ["", "a-b", "../a", "a b", "all"])
def test_a_split_that_cannot_be_read_back_is_refused(split, entries, tmp_path):
    with pytest.raises(ValueError, match="letters, digits and _"):
        run(entries, tmp_path / "out", split=split)
    assert not (tmp_path / "out").exists()


def test_splits_share_a_folder(entries, tmp_path):
    out = tmp_path / "out"
    run(entries[:3], out)
    run(entries[3:], out, split="test")
    assert [r.id for r in records.open_records(out, "train")] == ["a", "b", "c"]
    assert [r.id for r in records.open_records(out, "test")] == ["short", "still"]


def test_processes_give_the_same_bytes_as_one(entries, tmp_path):
    """With the real pipeline, which worker processes can import."""
    for name, engine in {"one": InlineEngine(), "two": LocalEngine(2)}.items():
        extract(entries[:3], tmp_path / name, SETTINGS, engine=engine)
    for index in (0, 1):
        one, two = (shards.shard_path(tmp_path / name, "train", index) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_from_python_weights_of_networks_are_noted(entries, tmp_path, monkeypatch):
    """Records of other ones never get into the same dataset. Without a network: its parts are."""
    built = []

    def prepare(parts, learned, given=None):
        return dataclasses.replace(learned, sums=(("net.pt", given or "published"),))

    def build(settings, weights=None):
        built.append(weights)
        return Grid(settings)

    monkeypatch.setattr(backends, "resolve", lambda learned: learned)
    monkeypatch.setattr(backends, "prepare", prepare)
    monkeypatch.setattr(pipeline, "build", build)
    settings = dataclasses.replace(
        SETTINGS, pipeline=dataclasses.replace(SETTINGS.pipeline, segmenter="directsam")
    )
    out, engine = tmp_path / "out", InlineEngine()
    extract(entries[:1], out, settings, engine=engine, weights="mine")
    noted = json.loads((out / "settings.json").read_text("utf-8"))
    assert noted["pipeline"]["learned"]["sums"] == [["net.pt", "mine"]] and built == ["mine"]
    for other in (None, "theirs"):
        with pytest.raises(OutputError, match="holds records of other settings"):
            extract(entries[:2], out, settings, engine=engine, weights=other)
    assert extract(entries[:2], out, settings, engine=engine, weights="mine").videos == 2
    with pytest.raises(ValueError, match="takes weights or build"):
        run(entries, out, weights="mine")


def test_the_program_of_the_documentation(clips):
    """In a file of its own: worker processes import it."""
    page = (Path(__file__).parents[2] / "docs/EXTRACTION.md").read_text("utf-8")
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL)
        if block.startswith("from tokenization.extract")
    )
    clips.video("clips/a.mp4", frames=9)
    program = clips.data("program.py", code.encode())
    done = subprocess.run(
        [sys.executable, program],
        cwd=clips.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "1 video, 8 frames" in done.stdout
    assert "a (8, 256, 256, 3) (8, 256, 256)" in done.stdout
