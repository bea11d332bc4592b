"""Bad videos stop nothing, and failures of the machine are not blamed on videos."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path

import pytest

from tests.tokenization.extraction import Grid, read, run
from tokenization import manifest, recorder, records
from tokenization.engines.crew import Patience
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import EngineError
from tokenization.weights import DownloadFailed


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


class Offline(Grid):
    """Its weights cannot be downloaded the first time, as on a machine without a network."""

    def __init__(self, settings):
        mark = Path(os.environ["OFFLINE_MARK"])
        if not mark.exists():
            mark.touch()
            raise DownloadFailed("cannot download weights")
        super().__init__(settings)


def test_a_machine_that_cannot_download_weights_is_left_out(entries, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OFFLINE_MARK", str(tmp_path / "mark"))
    summary = run(entries, tmp_path / "out", build=Offline, engine=LocalEngine(1))
    assert (summary.videos, summary.bad) == (len(entries), 0)
    assert "ended before it could take an item: cannot download weights" in caplog.text


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
    assert len(seen) == 7  # all but a, which was good
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


def test_a_disk_that_fails_in_the_middle_is_not_taken_for_an_odd_video(
    entries, tmp_path, monkeypatch
):
    monkeypatch.setattr(recorder, "_RETRY_AFTER", ())
    decode = recorder.Recorder._decode_once

    def fail(self, entry):
        if entry.id == "b":
            raise OSError(errno.EIO, "Input/output error", str(entry.path))
        return decode(self, entry)

    monkeypatch.setattr(recorder.Recorder, "_decode_once", fail)
    (bad,) = run(entries, tmp_path / "out").quarantine
    assert (bad.id, bad.reason) == ("b", "cannot be read (Input/output error)")
    assert bad.remedy == "check its path and the disk"


def test_bad_boxes_are_quarantined(clips, tmp_path):
    clips.video("a.mp4")
    entries = read(clips.root, [{"id": "a", "path": "a.mp4", "boxes": [{"box": [1]}]}])
    (bad,) = run(entries, tmp_path / "out").quarantine
    assert bad.reason.startswith("its boxes cannot be read (")
    assert bad.remedy == "correct the manifest"


def test_only_bad_videos(clips, tmp_path):
    clips.data("empty.mp4", b"")
    summary = run(read(clips.root, [{"id": "a", "path": "empty.mp4"}]), tmp_path / "out")
    assert summary.bad == 1
    with pytest.raises(records.RecordsError, match=r"no record in split 'train'; see .*quarantine"):
        records.open_records(tmp_path / "out")
