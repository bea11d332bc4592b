"""The extract command: bad videos stop nothing, finished work is not done twice."""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import wait
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from tokenization import manifest, recorder, records, shards, splits
from tokenization.engines.crew import Patience
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import EngineError, LooksAhead
from tokenization.extract import ExtractSettings, OutputError, extract
from tokenization.folder_lock import only_writer
from tokenization.pipeline import PipelineSettings
from tokenization.trajectories import Trajectories
from tokenization.tubelets import count_tubelets

SETTINGS = ExtractSettings(PipelineSettings(frames=4), record_size=32, shard_size=2)


class Grid:
    """A tokenizer of 4x4 cells that writes down what it was given."""

    seen: ClassVar[list[str]] = []

    def __init__(self, settings):
        self.settings = settings

    def tokenize(self, frames):
        self.seen.append(frames.video.id)
        t, h, w, _ = frames.rgb.shape
        labels = np.arange(h)[:, None] * 4 // h * 4 + np.arange(w) * 4 // w + 1
        return Trajectories.from_labels(
            np.broadcast_to(labels, (t, h, w)),
            frame_times=frames.times,
            key_frames=np.arange(t) == 0,
            video=frames.video,
        )


@pytest.fixture(autouse=True)
def seen():
    Grid.seen = []
    return Grid.seen


run = functools.partial(extract, settings=SETTINGS, build=Grid, engine=InlineEngine())


@pytest.fixture
def entries(clips):
    """Five good clips, one of them short, one an image, and a manifest that names them."""
    for name in "abc":
        clips.video(f"{name}.mp4", frames=10)
    clips.video("short.mp4", frames=3)
    clips.image("still.png")
    lines = [
        {"id": "a", "path": "a.mp4", "captions": ["one", "two"], "label": "run", "views": 3},
        {"id": "b", "path": "b.mp4", "start": 0.3, "end": 0.8},
        {"id": "c", "path": "c.mp4", "boxes": [{"time": 0.5, "box": [0, 0, 1, 1], "label": "x"}]},
        {"id": "short", "path": "short.mp4"},
        {"id": "still", "path": "still.png"},
    ]
    return read(clips.root, lines)


def read(root: Path, lines: list[dict]) -> list[manifest.Entry]:
    path = root / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest.read_manifest(path)


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
    assert summary.tubelets == 4 * count_tubelets(4) + count_tubelets(1) == 4 * 392 + 196
    assert "5 videos, 17 frames" in str(summary)
    assert "1 video with fewer frames than asked: the last one is repeated" in str(summary)


@pytest.mark.parametrize("engine", [InlineEngine(), LocalEngine(2)], ids=["inline", "local"])
def test_one_bad_video_never_stops_the_run(engine, clips, tmp_path):
    clips.video("good.mp4")
    clips.data("empty.mp4", b"")
    clips.data("text.mp4", b"hello\n")
    clips.audio("sound.mp4")
    lines = [
        {"id": name, "path": path}
        for name, path in {
            "missing": "missing.mp4",
            "empty": "empty.mp4",
            "good": "good.mp4",
            "text": "text.mp4",
            "sound": "sound.mp4",
            "out": "../out.mp4",
        }.items()
    ]
    summary = run(read(clips.root, lines), tmp_path / "out", engine=engine)
    assert summary.videos == 1 and summary.bad == pytest.approx(5 / 6)
    text = (tmp_path / "out" / "quarantine.jsonl").read_text()
    bad = {line["id"]: line for line in map(json.loads, text.splitlines())}
    reasons = {name: line["reason"] for name, line in bad.items()}
    assert reasons["missing"] == "does not exist"
    assert reasons["empty"] == "is empty (0 bytes)"
    assert reasons["text"] == "holds text, not video"
    assert reasons["sound"] == "has no video stream (only audio)"
    assert "leaves the manifest's folder" in reasons["out"]
    assert bad["empty"]["path"] == str(clips.root / "empty.mp4")
    assert bad["empty"]["remedy"] == "copy or download it again"
    assert [r.id for r in records.open_records(tmp_path / "out")] == ["good"]


def test_names_that_no_disk_takes_stop_nothing(clips, tmp_path):
    """Longer than a file name may be, or not UTF-8."""
    clips.video("good.mp4")
    long = read(clips.root, [{"id": "long", "path": "x" * 300 + ".mp4"}])
    (clips.root / "good.mp4").rename(clips.root / os.fsdecode(b"\xff.mp4"))
    clips.video("good.mp4")
    summary = run([*long, *manifest.read_entries(clips.root)], tmp_path / "out")
    assert summary.videos == 1
    reasons = {bad.id: bad.reason for bad in summary.quarantine}
    assert "File name too long" in reasons["long"]
    assert "is not UTF-8" in reasons["\\udcff"]
    lines = (tmp_path / "out" / "quarantine.jsonl").read_text("utf-8").splitlines()
    assert {json.loads(line)["id"] for line in lines} == {"long", "\\udcff"}


def test_a_fault_of_the_tokenizer_is_quarantined_too(entries, tmp_path, monkeypatch):
    tokenize = Grid.tokenize

    def fail(self, frames):
        if frames.video.id == "b":
            raise RuntimeError("no segment")
        return tokenize(self, frames)

    monkeypatch.setattr(Grid, "tokenize", fail)
    summary = run(entries, tmp_path / "out")
    assert [(bad.id, bad.reason) for bad in summary.quarantine] == [
        ("b", "RuntimeError: no segment")
    ]


def test_videos_that_all_fail_alike_end_the_run_and_are_not_quarantined(
    entries, tmp_path, monkeypatch, seen
):
    """As when a device or a disk has gone: another run does them."""
    tokenize = Grid.tokenize

    def fail(self, frames):
        if frames.video.id != "a":
            raise RuntimeError("no device")
        return tokenize(self, frames)

    out = tmp_path / "out"
    many = [*entries, *(dataclasses.replace(entries[1], id=f"more{i}") for i in range(3))]
    with monkeypatch.context() as patch:
        patch.setattr(Grid, "tokenize", fail)
        with pytest.raises(EngineError, match=r"4 videos in a row .* still: Runtime.*no device"):
            run(many, out, patience=Patience(in_a_row=4))
    assert records.finished_shards(out) == []
    seen.clear()
    assert run(many, out, patience=Patience(in_a_row=4)).quarantine == ()
    assert len(seen) == 8
    with monkeypatch.context() as patch:
        patch.setattr(Grid, "tokenize", fail)
        summary = run(many, tmp_path / "any", patience=Patience(in_a_row=None))
    assert len(summary.quarantine) == 7


def test_bad_videos_between_good_ones_are_no_fault_of_the_machine(entries, tmp_path, monkeypatch):
    tokenize = Grid.tokenize

    def fail(self, frames):
        if frames.video.id in ("b", "c", "still"):
            raise RuntimeError("no segment")
        return tokenize(self, frames)

    monkeypatch.setattr(Grid, "tokenize", fail)
    summary = run(entries, tmp_path / "out", patience=Patience(in_a_row=3))
    assert [bad.id for bad in summary.quarantine] == ["b", "c", "still"]


def test_memory_that_ran_out_is_not_blamed_on_the_video(entries, tmp_path, monkeypatch):
    def full(self, frames):
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(Grid, "tokenize", full)
    with pytest.raises(EngineError, match=r"memory ran out .*9 GiB"):
        run(entries, tmp_path / "out")
    assert records.finished_shards(tmp_path / "out") == []


def test_storage_that_fails_is_asked_again(entries, tmp_path, monkeypatch):
    """A mount that is away comes back; one that stays away is told as it is."""
    monkeypatch.setattr(recorder, "_RETRY_AFTER", (0.0, 0.0))
    tries = []
    whole = Path.open

    def stale(self, *args, **kwargs):
        if self.name == "b.mp4" and len(tries) < failures:
            tries.append(self.name)
            raise OSError(errno.ESTALE, "Stale file handle", str(self))
        return whole(self, *args, **kwargs)

    failures = 2
    monkeypatch.setattr(Path, "open", stale)
    assert run(entries, tmp_path / "out").quarantine == ()
    assert len(tries) == 2
    failures = 99
    (bad,) = run(entries, tmp_path / "away").quarantine
    assert (bad.id, bad.reason) == ("b", "cannot be read (Stale file handle)")


def test_bad_boxes_are_quarantined(clips, tmp_path):
    clips.video("a.mp4")
    entries = read(clips.root, [{"id": "a", "path": "a.mp4", "boxes": [{"box": [1]}]}])
    assert "its boxes cannot be read" in run(entries, tmp_path / "out").quarantine[0].reason


def test_only_bad_videos(clips, tmp_path):
    clips.data("empty.mp4", b"")
    summary = run(read(clips.root, [{"id": "a", "path": "empty.mp4"}]), tmp_path / "out")
    assert summary.bad == 1
    with pytest.raises(records.RecordsError, match=r"no record in split 'train'; see .*quarantine"):
        records.open_records(tmp_path / "out")


def test_running_again_does_only_what_is_not_done(entries, tmp_path, seen):
    out = tmp_path / "out"
    first = run(entries, out)
    seen.clear()
    again = run(entries, out)
    assert seen == [] and again == dataclasses.replace(first, skipped=5)
    shards.shard_path(out, "train", 1).unlink()
    assert run(entries, out).skipped == 3
    assert seen == ["c", "short"]
    seen.clear()
    shards.shard_info_path(out, "train", 0).unlink()  # written, but never said to be finished
    run(entries, out)
    assert seen == ["a", "b"]
    assert [r.id for r in records.open_records(out)] == ["a", "b", "c", "short", "still"]


def test_added_entries_and_changed_files_are_done(entries, clips, tmp_path, seen):
    out = tmp_path / "out"
    run(entries, out)
    clips.video("d.mp4")
    seen.clear()
    run([*entries, manifest.Entry("d", clips.root / "d.mp4")], out)
    assert seen == ["still", "d"]
    clips.video("a.mp4", frames=30)
    seen.clear()
    run([*entries, manifest.Entry("d", clips.root / "d.mp4")], out)
    assert seen == ["a", "b"]


def test_quarantined_videos_are_tried_again_on_demand_or_when_they_change(clips, tmp_path, seen):
    out = tmp_path / "out"
    clips.video("good.mp4")
    clips.data("bad.mp4", b"")
    lines = [{"id": name, "path": f"{name}.mp4"} for name in ("good", "bad")]
    assert run(read(clips.root, lines), out).videos == 1
    seen.clear()
    run(read(clips.root, lines), out)
    assert seen == []
    run(read(clips.root, lines), out, retry_quarantined=True)
    assert seen == ["good"]
    clips.video("bad.mp4")
    assert run(read(clips.root, lines), out).videos == 2
    assert (out / "quarantine.jsonl").read_text() == ""


def test_other_settings_are_refused(entries, tmp_path):
    out = tmp_path / "out"
    run(entries, out)
    other = dataclasses.replace(SETTINGS, record_size=16)
    with pytest.raises(OutputError, match=r"record_size: 32, now 16\); choose another --output"):
        run(entries, out, settings=other)
    assert records.open_records(out)[0].frames.shape[1] == 32
    run(entries, out, settings=other, overwrite=True)
    assert {r.frames.shape[1] for r in records.open_records(out)} == {16}


def test_a_shorter_input_is_refused(entries, tmp_path):
    out = tmp_path / "out"
    run(entries, out)
    with pytest.raises(OutputError, match=r"has 3 shards of split 'train' .* only 1"):
        run(entries[:2], out)
    run(entries[:2], out, overwrite=True)
    assert [r.id for r in records.open_records(out)] == ["a", "b"]


def test_a_list_of_files_that_are_not_there_is_wrong_as_a_whole(clips, tmp_path):
    lines = [{"id": name, "path": f"{name}.mp4"} for name in "abc"]
    with pytest.raises(ValueError, match=rf"none of the 3 videos exists.* {clips.root}/a\.mp4"):
        run(read(clips.root, lines), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_absolute_paths_are_read(clips, tmp_path):
    path = clips.video("elsewhere/a.mp4")
    (clips.root / "lists").mkdir()
    summary = run(read(clips.root / "lists", [{"id": "a", "path": str(path)}]), tmp_path / "out")
    assert summary.videos == 1


def test_a_file_in_the_place_of_the_output(entries, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(OutputError, match="out is a file; --output names the folder"):
        run(entries, tmp_path / "out")


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


def test_a_split_that_was_cut_off_is_not_taken_for_a_whole_one(entries, tmp_path, monkeypatch):
    """Neither by a reader, nor by the split that is finished after it."""
    out, write = tmp_path / "out", splits._write

    def stopped(output, info, outcomes):
        write(output, info, outcomes)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(splits, "_write", stopped)
        run(entries[:3], out)
    assert len(records.finished_shards(out)) == 1
    for again in range(2):
        with pytest.raises(records.RecordsError, match=r"split 'train' .* is not finished; run"):
            records.open_records(out, "train")
        if not again:
            run(entries[3:], out, split="test")
    assert [r.id for r in records.open_records(out, "test")] == ["short", "still"]
    assert "train" not in (out / "stats.md").read_text("utf-8")
    run(entries[:3], out)
    assert [r.id for r in records.open_records(out, "train")] == ["a", "b", "c"]
    assert [r.id for r in records.open_records(out, "test")] == ["short", "still"]
    assert not list(out.rglob("*.unfinished"))


def test_what_killed_runs_left_is_removed(entries, tmp_path):
    """Not what a run that still goes on is writing."""
    out = tmp_path / "out"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    staging = out / f".metadata.{ended.pid}.partial"
    staging.mkdir(parents=True)
    (staging / "features.json").touch()
    (out / "shards").mkdir()
    files = [out / f".a-00000.{ended.pid}.partial", out / "shards" / f".a.{ended.pid}.partial"]
    others = [out / f".b.{os.getppid()}.partial", out / ".c.partial"]
    for path in files + others:
        path.touch()
    run(entries, out)
    assert sorted(out.rglob(".*.partial")) == sorted(others)


def test_a_full_disk_keeps_finished_shards(entries, tmp_path, monkeypatch, seen):
    out = tmp_path / "out"
    write = shards._write_array_record

    def full(path, data):
        if "00001" in path.name:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "_write_array_record", full)
        with pytest.raises(OSError, match="No space left"):
            run(entries, out)
    assert not list(out.rglob("*.partial"))
    with pytest.raises(records.RecordsError, match=r"'train' .* is not finished"):
        records.open_records(out)
    seen.clear()
    run(entries, out)
    assert seen == ["c", "short", "still"]
    assert len(records.open_records(out)) == 5


def test_processes_give_the_same_bytes_as_one(entries, tmp_path):
    """With the real pipeline, which worker processes can import."""
    for name, engine in {"one": InlineEngine(), "two": LocalEngine(2)}.items():
        extract(entries[:3], tmp_path / name, SETTINGS, engine=engine)
    for index in (0, 1):
        one, two = (shards.shard_path(tmp_path / name, "train", index) for name in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


class Deadly(Grid):
    """Ends its process at one video, and takes for ever at another."""

    def tokenize(self, frames):
        if frames.video.id == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        if frames.video.id == "short":
            time.sleep(600)
        return super().tokenize(frames)


def test_videos_that_kill_or_hold_up_a_process_are_quarantined(entries, tmp_path):
    summary = run(
        entries, tmp_path / "out", build=Deadly, engine=LocalEngine(2), patience=Patience(2, 3.0)
    )
    assert [record.id for record in records.open_records(tmp_path / "out")] == ["a", "c", "still"]
    reasons = {bad.id: (bad.reason, bad.remedy) for bad in summary.quarantine}
    assert reasons.keys() == {"b", "short"}
    assert reasons["b"][0] == "the process that read it died (2x)"
    assert "use fewer --workers" in reasons["b"][1]
    assert reasons["short"] == ("it took too long (2x)", "raise --time_limit, or convert the video")


class Together(Grid):
    """Takes several videos at once."""

    sizes: ClassVar[list[int]] = []

    def tokenize_batch(self, videos):
        self.sizes.append(len(videos))
        if any(video.video.id == "odd" for video in videos):
            raise RuntimeError("one of them is odd")
        return [self.tokenize(video) for video in videos]


def test_several_videos_at_once_give_the_same_records(entries, clips, tmp_path, monkeypatch):
    """Those that fail together go one by one; one that cannot be read costs only itself."""
    monkeypatch.setattr(Together, "sizes", [])
    clips.data("broken.mp4", b"")
    clips.video("odd.mp4", frames=5)
    more = [manifest.Entry(name, clips.root / f"{name}.mp4") for name in ("broken", "odd")]
    entries = [*entries[:2], more[0], *entries[2:], more[1]]
    one = run(entries, tmp_path / "one")
    many = run(entries, tmp_path / "many", build=Together, together=3)
    assert (one.videos, one.quarantine) == (many.videos, many.quarantine)
    assert one.videos == 6 and [bad.id for bad in many.quarantine] == ["broken"]
    assert Together.sizes == [2, 3]  # a, b; c, short, still; and odd is left, alone
    for index in range(4):
        paths = [shards.shard_path(tmp_path / n, "train", index) for n in ("one", "many")]
        assert paths[0].read_bytes() == paths[1].read_bytes()
    run(entries[3:], tmp_path / "odd", build=Together, together=2)
    assert [r.id for r in records.open_records(tmp_path / "odd")] == ["c", "short", "still", "odd"]


def test_groups_are_decoded_ahead_and_single_videos_are_not(entries, tmp_path, monkeypatch):
    """Of a single one that kills the process, nobody else may be blamed."""
    done = []
    monkeypatch.setattr(
        recorder.Recorder, "_decode_or_none", lambda self, entry: done.append(entry.id)
    )
    one = recorder.Recorder(SETTINGS, Together)
    one.ahead(entries[:1])
    assert done == [] and isinstance(one, LooksAhead)
    one.ahead(entries[:2])
    one.ahead(entries[2:4])
    for decoding in one._decoding.values():
        wait(decoding)
    monkeypatch.undo()
    monkeypatch.setattr(Together, "sizes", [])
    outcomes = one(entries[:2])
    assert sorted(done) == ["a", "b", "c", "short"], "decoded once, and before their turn"
    assert [outcome.id for outcome in outcomes if outcome.data] == ["a", "b"]
    assert Together.sizes == [], "what was not decoded together goes one by one"
    one(entries[3:])
    assert Together.sizes == [2], "those that nobody announced are decoded now"


class DeadlyTogether(Deadly, Together):
    """As `Deadly`, whoever else is in the batch."""


def test_a_video_that_kills_is_found_among_those_that_went_with_it(entries, tmp_path):
    summary = run(
        [*entries[:3], entries[4]],
        tmp_path / "out",
        build=DeadlyTogether,
        engine=LocalEngine(1),
        patience=Patience(1, 30.0),
        together=2,
    )
    assert [record.id for record in records.open_records(tmp_path / "out")] == ["a", "c", "still"]
    assert [(bad.id, bad.reason) for bad in summary.quarantine] == [
        ("b", "the process that read it died (1x)")
    ]


def test_videos_of_failed_groups_go_alone_before_the_last_group(monkeypatch, annotations_unchecked):
    """The rest of their shard waits in memory, of millions of videos otherwise to the end."""
    monkeypatch.setattr(splits, "_WINDOW", 2)
    monkeypatch.setattr(splits, "_ROUNDS", 2)

    class OneWorker:
        most = 1

        def map(self, groups, patience=None):
            given.extend(groups)
            for number, group in enumerate(groups):
                failed = len(group) > 1 and "3" in group
                yield number, [] if failed else [recorder.Outcome(entry) for entry in group]

    given: list[list[str]] = []
    entries = [str(number) for number in range(11)]
    job = splits.Job(SETTINGS, Grid, together=2)
    found = list(splits._outcomes(OneWorker(), entries, job, None))
    assert sorted(found, key=lambda one: one[0]) == [
        (number, recorder.Outcome(str(number))) for number in range(11)
    ]
    assert ["".join(group) for group in given] == ["01", "23", "2", "3", "45", "67", "89", "10"]


def test_nobody_else_writes_to_the_folder(entries, tmp_path, seen):
    """Not another process on this host, nor one on another that shares the folder."""
    out = tmp_path / "out"
    with only_writer(out):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "tokenization.extract", "--workers=1"),
                *(f"--input={entries[0].path}", f"--output={out}"),
            ],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert re.search(
        rf"error: {out} is in use by another process on host .*, pid {os.getpid()}, since "
        r".*choose another --output",
        done.stderr,
    )
    assert run(entries, out).videos == 5  # it is free again


def command(*args: object, **kwargs) -> subprocess.Popen:
    line = [sys.executable, "-m", "tokenization.extract", *map(str, args)]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **kwargs
    )


def test_the_command(entries, clips, tmp_path):
    clips.data("empty.mp4", b"")
    out = tmp_path / "out"
    config = clips.data(
        "config.py",
        b"import ml_collections\n"
        b"def get_config(arg=None):\n"
        b"    return ml_collections.ConfigDict({'pipeline': {'frames': 4}, 'record_size': 32})\n",
    )
    process = command(
        f"--input={clips.root}/[acs]*.mp4", f"--output={out}", f"--config={config}", "--workers=1"
    )
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    assert "3 videos, 12 frames" in stdout and "fewer tokens" in stdout
    assert stdout.count("1 video with fewer frames than asked") == 1
    assert "fewer frames" not in stderr
    assert "videos a second, processes: 1" in stdout
    assert "extract: 100%" in stderr
    process = command(f"--input={clips.root}/e*.mp4", f"--output={tmp_path}/bad", "--workers=1")
    stdout, stderr = process.communicate()
    assert process.returncode == 1
    assert "100.0% of the videos could not be read, more than --max_bad=5.0%" in stderr
    assert f"empty: {clips.root}/empty.mp4 is empty (0 bytes); copy or download" in stdout
    assert "1 video could not be read" in stdout and "fewer tokens" not in stdout


def test_the_command_says_that_its_workers_cannot_start(clips, tmp_path):
    clips.video("a.mp4")
    script = (
        "from absl import app\n"
        "from tokenization import extract\n"
        "from tokenization.engines import local\n"
        "class Ending(local._Process):\n"
        "    def __init__(self, make, gpu):\n"
        "        super().__init__(make, gpu)\n"
        "        self.process.kill()\n"
        "local._Process = Ending\n"
        "extract.define_flags()\n"
        "app.run(extract.main)\n"
    )
    arguments = [f"--input={clips.root / 'a.mp4'}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "error: worker processes cannot start" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "flags", [("--engine=ray",), ("--address=auto",), ("--gpus_per_worker=1",)], ids=str
)
def test_engines_that_cannot_be_had(flags, clips, tmp_path):
    """Ray is not installed here, or made to seem so; its flags are refused without it."""
    clips.video("a.mp4")
    script = (
        "import sys\n"
        "from absl import app\n"
        "sys.modules['ray'] = None\n"
        "from tokenization import extract\n"
        "extract.define_flags()\n"
        "app.run(extract.main)\n"
    )
    arguments = [f"--input={clips.root / 'a.mp4'}", f"--output={tmp_path / 'out'}", *flags]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    without = "ray" in flags[0]
    assert done.returncode == (1 if without else 2) and "Traceback" not in done.stderr
    assert ("make ray" if without else "is of --engine=ray") in done.stderr


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_no_error(flag):
    process = command(flag)
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert "--input" in stdout and "python -m tokenization.extract" in stdout


def test_the_command_says_what_is_wrong_with_its_input(tmp_path):
    (tmp_path / "bad.jsonl").write_text("{no json\n")
    process = command(f"--input={tmp_path}/bad.jsonl", f"--output={tmp_path}/out")
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert "bad.jsonl line 1: " in stderr and "Traceback" not in stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (
            "import ml_collections as m\ndef get_config(arg=None):\n"
            "    return m.ConfigDict({'model': {}, 'steps': 3})\n",
            "is a training config",
        ),
        (None, "does not exist"),
    ],
)
def test_a_config_of_another_kind_is_told(clips, tmp_path, config, reason):
    clips.video("a.mp4")
    path = clips.root / "config.py"
    if config:
        path.write_text(config)
    process = command(f"--input={clips.root}/a.mp4", f"--output={tmp_path}/out", f"--config={path}")
    _, stderr = process.communicate()
    assert process.returncode == 2
    assert reason in stderr and "Traceback" not in stderr


@pytest.mark.parametrize("presses", [1, 2])
def test_ctrl_c_leaves_nothing_half_written(clips, tmp_path, presses):
    """Once, or twice as by someone in a hurry, or by `timeout`."""
    content = clips.video(frames=4).read_bytes()
    (clips.root / "v").mkdir()
    for index in range(40):
        clips.data(f"v/{index:02d}.mp4", content)
    out = tmp_path / "out"
    config = clips.data(
        "config.py",
        b"import ml_collections\n"
        b"def get_config(arg=None):\n"
        b"    return ml_collections.ConfigDict(\n"
        b"        {'pipeline': {'frames': 4}, 'shard_size': 1, 'record_size': 32})\n",
    )
    args = (f"--input={clips.root}/v", f"--output={out}", f"--config={config}", "--workers=2")
    process = command(*args, start_new_session=True)
    while not list(out.glob("shards/train-*.json")) and process.poll() is None:
        time.sleep(0.01)
    for _ in range(presses):
        os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "run the same command again to go on" in stderr and "Traceback" not in stderr
    assert not list(out.rglob("*.partial"))
    finished = len(records.finished_shards(out))
    assert 1 <= finished < 40
    if presses == 1:
        return
    stdout, stderr = command(*args).communicate()
    assert f"40 videos, 160 frames ({finished} w" in stdout, stderr
