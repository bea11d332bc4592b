"""What another run finds: finished work is not done twice, cut-off work is not trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import os
import re
import subprocess
import sys

import pytest

from tests.tokenization.extraction import SETTINGS, Grid, read, run
from tokenization import files, journal, manifest, missing, records, shards, splits
from tokenization.extract import OutputError
from tokenization.folder_lock import only_writer
from tokenization.recorder import Outcome

LARGE = dataclasses.replace(SETTINGS, shard_size=64)


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


def test_a_run_that_finds_all_done_looks_at_no_video_alone(entries, tmp_path, monkeypatch):
    """Of millions, that took most of its start, and their keys were held until its end."""
    out, hashed = tmp_path / "out", []
    run(entries, out)
    short_hash = records.short_hash
    monkeypatch.setattr(records, "short_hash", lambda value: hashed.append(0) or short_hash(value))
    run(entries, out)
    assert len(hashed) == 4  # one of the settings, and one a shard


def test_records_that_were_begun_are_let_go_when_their_shard_is_written(
    entries, tmp_path, monkeypatch
):
    out, held = tmp_path / "out", {}
    tokenize = Grid.tokenize

    def watched(self, frames):
        # Not isinstance, which asks every object of every library for its class.
        outcomes = [one for one in gc.get_objects() if type(one) is Outcome]
        held[frames.video.id] = "a" in {outcome.id for outcome in outcomes}
        if stop == frames.video.id:
            raise KeyboardInterrupt
        return tokenize(self, frames)

    monkeypatch.setattr(Grid, "tokenize", watched)
    stop = "b"
    with pytest.raises(KeyboardInterrupt):
        run(entries, out)
    stop = ""
    run(entries, out)
    assert held["b"] and not held["still"]


def same_bytes(one, two):
    """Whether two folders hold the same shards, and the same notes of them but for the seconds."""
    files = [sorted(folder.glob("*.array_record-*")) for folder in (one, two)]
    notes = [
        [dataclasses.replace(info, seconds=0.0) for info in records.finished_shards(folder)]
        for folder in (one, two)
    ]
    return notes[0] == notes[1] and [path.read_bytes() for path in files[0]] == [
        path.read_bytes() for path in files[1]
    ]


def test_added_entries_and_changed_files_are_done(entries, clips, tmp_path, seen, caplog):
    out = tmp_path / "out"
    run(entries, out)
    clips.video("d.mp4")
    seen.clear()
    run([*entries, manifest.Entry("d", clips.root / "d.mp4")], out)
    assert seen == ["d"] and "done again" not in caplog.text
    run([*entries, manifest.Entry("d", clips.root / "d.mp4")], tmp_path / "fresh")
    assert same_bytes(out, tmp_path / "fresh")
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
    assert seen == []  # what is good is not put at risk
    assert run(read(clips.root, lines), out).skipped == 2
    clips.video("bad.mp4")
    assert run(read(clips.root, lines), out).videos == 2
    assert (out / "quarantine.jsonl").read_text() == ""


@pytest.fixture
def retried(entries, clips, tmp_path, monkeypatch):
    """A folder in which the first two videos failed, and the run that tries them again."""
    tokenize = Grid.tokenize

    def failing(self, frames):
        if frames.video.id in "ab":
            raise ValueError("no memory on the device")
        return tokenize(self, frames)

    with monkeypatch.context() as patch:
        patch.setattr(Grid, "tokenize", failing)
        run(entries, tmp_path / "out", settings=LARGE)
    return lambda: run(entries, tmp_path / "out", settings=LARGE, retry_quarantined=True)


def test_what_was_good_beside_quarantined_videos_is_kept_as_it_is(
    retried, entries, tmp_path, seen, monkeypatch
):
    """Also when the run is killed between the removal of the old shard and the new one."""
    out = tmp_path / "out"

    def killed(path, data):
        assert not list((out / "shards").glob("*.json"))
        shards.shard_path(out, "train", 0).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
        patch.setattr(shards, "_write_array_record", killed)
        retried()
    assert caught.value.__notes__ == ["4 of 5 videos are done and kept"]  # but for the last one
    assert seen == ["a", "b"]
    seen.clear()
    assert retried().skipped == 4
    assert seen == ["b"]
    run(entries, tmp_path / "fresh", settings=LARGE)
    assert same_bytes(out, tmp_path / "fresh")


def test_finished_videos_whose_files_are_gone_are_not_removed_without_a_word(
    entries, clips, tmp_path, seen, caplog
):
    """They would be quarantined in their place."""
    out = tmp_path / "out"
    run(entries, out)
    before = sorted(path.read_bytes() for path in out.rglob("*-0000*"))
    for name in ("a.mp4", "c.mp4"):
        (clips.root / name).unlink()
    more = [*entries, manifest.Entry("d", clips.video("d.mp4"))]
    seen.clear()
    with pytest.raises(
        OutputError, match=r"2 finished videos .* \('a', 'c'\) .*/a\.mp4 is not there; put the fil"
    ):
        run(more, out)
    assert seen == [] and not list(out.rglob("*.unfinished"))
    assert sorted(path.read_bytes() for path in out.rglob("*-0000*")) == before
    assert run(more, out, overwrite=True).videos == 4
    assert "the records of 2 finished videos of split 'train' go, without a file" in caplog.text


def test_what_was_begun_of_files_that_are_gone_is_not_removed_without_a_word(
    entries, clips, tmp_path, cut_off
):
    cut_off("c")
    (clips.root / "a.mp4").unlink()
    with pytest.raises(OutputError, match=r"1 finished video of split 'train' \('a'\)"):
        run(entries, tmp_path / "out", settings=LARGE)
    assert list(tmp_path.rglob("*.journal"))


def test_short_videos_that_were_only_counted_are_not_forgotten(retried, tmp_path):
    path = shards.shard_info_path(tmp_path / "out", "train", 0)
    info = records.ShardInfo.from_json(path.read_text())
    assert info.repeated == 1
    path.write_text(dataclasses.replace(info, short=(), damaged=()).to_json())
    summary = retried()
    assert (summary.videos, summary.repeated, summary.short) == (5, 1, ())


def test_a_damaged_shard_beside_quarantined_videos_is_told(retried, tmp_path, seen):
    path = shards.shard_path(tmp_path / "out", "train", 0)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(OSError, match=r"-00000: its records cannot be kept .* remove this file"):
        retried()
    path.unlink()
    seen.clear()
    assert retried().videos == 5
    assert seen == ["b", "c", "short", "still"]


def test_other_settings_are_refused(entries, tmp_path, caplog):
    """With all that --overwrite would remove: the other splits, too."""
    out = tmp_path / "out"
    run(entries[:3], out)
    run(entries[3:], out, split="test")
    other = dataclasses.replace(SETTINGS, record_size=16)
    both = r"split 'test' with 2 videos, split 'train' with 3 videos"
    with pytest.raises(
        OutputError,
        match=rf"record_size: 32, now 16\); choose another --output, .* removes them all: {both}$",
    ):
        run(entries[3:], out, split="test", settings=other)
    assert records.open_records(out, "train")[0].frames.shape[1] == 32
    assert not caplog.records
    run(entries[3:], out, split="test", settings=other, overwrite=True)
    assert re.search(f"removed from {out}, as of other settings: {both}", caplog.text)
    assert {r.frames.shape[1] for r in records.open_records(out, "test")} == {16}


def test_other_settings_may_follow_where_nothing_was_finished(clips, tmp_path, caplog):
    """A split of quarantined videos alone has shards all the same."""
    out = tmp_path / "out"
    clips.data("bad.mp4", b"")
    clips.video("good.mp4", frames=4)
    run(read(clips.root, [{"id": "bad", "path": "bad.mp4"}]), out, split="test")
    good = read(clips.root, [{"id": "good", "path": "good.mp4"}])
    other = dataclasses.replace(SETTINGS, record_size=16)
    assert run(good, out, settings=other).videos == 1
    assert [info.split for info in records.finished_shards(out)] == ["train"]
    assert not [one for one in caplog.records if one.levelname == "WARNING"]


def test_videos_that_the_input_lacks_are_not_removed_without_a_word(entries, tmp_path, caplog):
    """Of another list as long as the first, or longer, as much as of a shorter one."""
    out = tmp_path / "out"
    run(entries[:2], out)
    with pytest.raises(
        OutputError, match=r"holds 2 videos of split 'train' .* \('a', 'b'\); .* --overwrite, which"
    ):
        run(entries[2:], out)
    run(entries, out)
    with pytest.raises(OutputError, match=r"4 videos .* \('a', 'b', 'c', 'short'\); .* manifest"):
        run(entries[4:], out)
    assert [r.id for r in records.open_records(out)] == ["a", "b", "c", "short", "still"]
    assert not caplog.records
    run(entries[:1], out, overwrite=True)
    assert (
        "4 videos of split 'train' that the input lacks: 'b', 'c', 'short', 'still'" in caplog.text
    )
    assert [r.id for r in records.open_records(out)] == ["a"]


def test_a_list_of_missing_entries_goes_with_the_videos_of_its_input(entries, tmp_path, caplog):
    """Else an evaluation counts what the new input never had."""
    out, listed = tmp_path / "out", {"gone": "gone.mp4"}
    run(entries[:2], out)
    missing.keep(listed, out, "train")
    run(entries[:3], out)
    assert missing.read_kept(out, "train") == listed
    run(entries[2:], out, overwrite=True)
    assert missing.read_kept(out, "train") == {}
    assert "the split's list of missing entries (1)" in caplog.text
    missing.keep(listed, out, "train")
    other = dataclasses.replace(SETTINGS, record_size=16)
    run(entries[2:], out, split="test", settings=other, overwrite=True)
    assert missing.read_kept(out, "train") == {}


def test_a_shorter_list_keeps_the_shards_that_are_as_before(entries, tmp_path, seen):
    out = tmp_path / "out"
    run(entries, out)
    seen.clear()
    assert run(entries[:3], out, overwrite=True).videos == 3
    assert seen == ["c"]
    assert [r.id for r in records.open_records(out)] == ["a", "b", "c"]
    seen.clear()
    assert run(entries[:2], out, overwrite=True).videos == 2
    assert seen == []  # a whole shard less: there is nothing to do but to forget it
    assert [r.id for r in records.open_records(out)] == ["a", "b"]
    assert not list(out.glob("*-00001")) and not list(out.rglob("*.unfinished"))


def test_a_bad_video_may_be_taken_out(clips, tmp_path, caplog):
    """Nothing finished is lost by that; what is done again is told, with a shard too many."""
    clips.data("a.mp4", b"")
    for name in "bcde":
        clips.video(f"{name}.mp4", frames=4)
    lines = [{"id": name, "path": f"{name}.mp4"} for name in "abcde"]
    assert run(read(clips.root, lines), tmp_path / "out").videos == 4
    assert run(read(clips.root, lines[1:]), tmp_path / "out").videos == 4
    assert [r.id for r in records.open_records(tmp_path / "out")] == ["b", "c", "d", "e"]
    assert "4 finished videos of split 'train' done again" in caplog.text


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


@pytest.fixture
def cut_off(entries, tmp_path, monkeypatch):
    """Runs until a video and stops there, as by Ctrl-C, in a shard of 64; with what was told."""

    def cut(name, out=tmp_path / "out"):
        tokenize = Grid.tokenize

        def stopping(self, frames):
            if frames.video.id == name:
                raise KeyboardInterrupt
            return tokenize(self, frames)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as caught:
            patch.setattr(Grid, "tokenize", stopping)
            run(entries, out, settings=LARGE)
        return caught.value.__notes__

    return cut


def test_a_run_that_is_cut_off_keeps_videos_of_unfinished_shards(
    entries, clips, tmp_path, seen, cut_off
):
    out, whole = tmp_path / "out", tmp_path / "whole"
    run(entries, whole, settings=LARGE)
    assert cut_off("c") == ["2 of 5 videos are done and kept"]
    assert cut_off("still") == ["4 of 5 videos are done and kept"]
    seen.clear()
    clips.video("short.mp4", frames=3)  # it is another file now
    assert run(entries, out, settings=LARGE).skipped == 3
    assert seen == ["short", "still"]
    one, two = (shards.shard_path(folder, "train", 0).read_bytes() for folder in (out, whole))
    assert one == two
    assert not list(out.rglob("*.journal"))


def test_what_was_begun_is_not_written_again(entries, tmp_path, seen, cut_off, monkeypatch):
    """A disk that was full may have no room for it; what is, lasts."""
    cut_off("c")
    (path,) = tmp_path.rglob("*.journal")
    written = []

    @contextlib.contextmanager
    def noted(path, *, lasting=False):
        written.append((path.name, lasting))
        with files.replacing(path, lasting=lasting) as partial:
            yield partial

    monkeypatch.setattr(journal, "replacing", noted)
    before = path.read_bytes()
    cut_off("c")
    assert path.read_bytes() == before and not written
    path.write_bytes(before + b"half of the next one")  # what is added after it would be lost
    cut_off("short")
    assert written == [(path.name, True)]
    seen.clear()
    run(entries, tmp_path / "out", settings=LARGE)
    assert seen == ["short", "still"]


def test_what_was_cut_off_goes_on_with_more_videos_in_other_places(
    entries, clips, tmp_path, seen, cut_off
):
    cut_off("c")
    seen.clear()
    more = [manifest.Entry("new", clips.video("new.mp4")), *entries]
    run(more, tmp_path / "out", settings=LARGE)
    assert seen == ["new", "c", "short", "still"]
    assert len(records.open_records(tmp_path / "out")) == 6


def test_a_shard_whose_videos_are_all_done_is_written(entries, tmp_path, monkeypatch, seen):
    """The last one of them was taken out of the list."""
    out = tmp_path / "out"

    def full(path, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(shards, "_write_array_record", full)
        run(entries[:2], out)
    seen.clear()
    assert run(entries[:1], out).skipped == 1
    assert seen == [] and [r.id for r in records.open_records(out)] == ["a"]


@pytest.mark.parametrize("damage", ["cut", "flipped", "noise"])
def test_a_damaged_journal_is_trusted_up_to_the_damage(damage, entries, tmp_path, seen, cut_off):
    out = tmp_path / "out"
    cut_off("short")
    (path,) = out.rglob("*.journal")
    data = path.read_bytes()
    line = data.index(b"\n") + 1
    second = line + json.loads(data[65:line])["bytes"]  # after a sum and a space
    path.write_bytes(
        {
            "cut": data[: second + 500],
            "flipped": data[: second + 500] + b"?" + data[second + 501 :],
            "noise": data[:second] + b'{"key": 3}\n\n[]\n' + data[second:],
        }[damage]
    )
    seen.clear()
    run(entries, out, settings=LARGE)
    assert seen == ["b", "c", "short", "still"]
    assert len(records.open_records(out)) == 5


def test_what_was_cut_off_is_not_removed_without_a_word(entries, tmp_path, cut_off):
    out = tmp_path / "out"
    cut_off("c")
    other = dataclasses.replace(LARGE, record_size=16)
    with pytest.raises(OutputError, match=r"them all: split 'train' with 2 videos"):
        run(entries, out, settings=other)
    with pytest.raises(OutputError, match=r"2 videos of split 'train' .* \('a', 'b'\)"):
        run(entries[2:], out, settings=LARGE)
    run(entries[2:], out, split="test", settings=other, overwrite=True)
    assert {path.name for path in (out / "shards").iterdir()} == {"test-00000.json"}


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


def test_a_full_disk_keeps_what_is_finished(entries, tmp_path, monkeypatch, seen):
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
    assert seen == ["short", "still"]
    assert len(records.open_records(out)) == 5


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
