"""Several videos at once, in processes that may die over one of them."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from typing import ClassVar

import pytest

from tests.tokenization.extraction import SETTINGS, Grid, run
from tokenization import manifest, recorder, records, shards, splits
from tokenization.annotations.writer import write_manifest
from tokenization.engines.crew import Patience
from tokenization.engines.local import LocalEngine
from tokenization.engines.protocol import LooksAhead, WorkerUnfit


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

    def full(self, entry):
        done.append(entry.id)
        raise MemoryError("no room for all")

    monkeypatch.setattr(recorder.Recorder, "_decode", full)
    one = recorder.Recorder(SETTINGS, Together)
    one.ahead(entries[:1])
    assert done == [] and isinstance(one, LooksAhead)
    one.ahead(entries[:2])
    one.ahead(entries[2:4])
    for decoding in one._decoding.values():
        wait(decoding.values())
    monkeypatch.undo()
    monkeypatch.setattr(Together, "sizes", [])
    outcomes = one(entries[:2])
    assert sorted(done) == ["a", "b", "c", "short"], "decoded once, and before their turn"
    assert [outcome.id for outcome in outcomes if outcome.data] == ["a", "b"]
    assert Together.sizes == [], "what had no room together goes one by one"
    one(entries[3:])
    assert Together.sizes == [2], "those that nobody announced are decoded now"


@pytest.mark.parametrize("odd", [False, True])
def test_what_was_decoded_for_a_group_is_not_decoded_again(entries, clips, monkeypatch, odd):
    """Also where it failed: storage that is away was waited for twice."""
    monkeypatch.setattr(Together, "sizes", [])
    tries, decode = [], recorder.Recorder._decode_once

    def away(self, entry):
        tries.append(entry.id)
        if entry.id == "b":
            raise OSError(errno.EIO, "Input/output error", str(entry.path))
        return decode(self, entry)

    monkeypatch.setattr(recorder, "_RETRY_AFTER", (0.0, 0.0))
    monkeypatch.setattr(recorder.Recorder, "_decode_once", away)
    more = [manifest.Entry("odd", clips.video("odd.mp4", frames=5))] if odd else []
    bad = dataclasses.replace(entries[3], id="bad", problem="leaves the folder")
    outcomes = recorder.Recorder(SETTINGS, Together)([*entries[:3], bad, *more])
    assert [one.id for one in outcomes if one.quarantined] == ["b", "bad"]
    assert sorted(tries) == ["a", "b", "b", "b", "c", *(["odd"] if odd else [])]


def test_records_of_a_group_are_made_side_by_side_and_stay_in_order(entries, monkeypatch):
    """The first waits for the last, which is then done before it."""
    made, record, last = [], recorder.Recorder._record, threading.Event()

    def slow(self, entry, *found):
        if entry.id == "a":
            assert last.wait(30)
        made.append(entry.id)
        if entry.id == "c":
            last.set()
        return record(self, entry, *found)

    monkeypatch.setattr(recorder.Recorder, "_record", slow)
    one = recorder.Recorder(SETTINGS, Together)
    outcomes = one([entries[0], entries[1], entries[2]])
    assert [outcome.id for outcome in outcomes if outcome.data] == ["a", "b", "c"]
    assert sorted(made) == ["a", "b", "c"] and made.index("c") < made.index("a")


IMPORTS = """
import sys
from tests.tokenization.extraction import SETTINGS
from tests.tokenization.test_extract_together import Together
from tokenization import manifest, recorder

work, before = recorder.Recorder(SETTINGS, Together), set(sys.modules)
outcomes = work(manifest.read_manifest(sys.argv[1]))
assert all(outcome.data for outcome in outcomes), outcomes
late = sorted(name for name in set(sys.modules) - before if not name.startswith("av."))
assert not late, late
"""


def test_threads_of_a_worker_import_nothing_but_parts_of_pyav(entries, tmp_path):
    """Two that import TensorFlow Datasets at once have waited for each other for ever."""
    write_manifest(entries, tmp_path / "all.jsonl")
    line = [sys.executable, "-c", IMPORTS, str(tmp_path / "all.jsonl")]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_memory_that_runs_out_in_one_of_them_is_the_machines_fault(entries, monkeypatch):
    def full(self, entry, *found):
        raise MemoryError("no room")

    monkeypatch.setattr(recorder.Recorder, "_record", full)
    with pytest.raises(WorkerUnfit, match="memory ran out"):
        recorder.Recorder(SETTINGS, Together)(entries[:2])


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
