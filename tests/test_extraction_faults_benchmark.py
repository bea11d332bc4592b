"""The benchmark that kills workers: what it finds, and what it calls good."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.extraction_faults import Verdict, _kill_one, make_videos
from benchmarks.parts.workers import worker_processes
from tokenization.engines.crew import Crew
from tokenization.engines.local import LocalEngine
from tokenization.manifest import read_manifest
from tokenization.video import VideoError, decode

GOOD = Verdict("local", 9, 2, 3, 0, 0, 2, (3, 0), same_quarantine=True, left=0, seconds=(2.0, 1.0))


def test_nothing_lost_doubled_or_changed_is_good():
    assert GOOD.good and str(GOOD).endswith("good")


def test_a_worker_that_has_just_ended_is_not_killed():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert not _kill_one([ended.pid], random.Random(0))
    assert not _kill_one([], random.Random(0))


@pytest.mark.parametrize(
    "change",
    [
        {"missing": 1},
        {"twice": 1},
        {"quarantined": 1},
        {"shards": (3, 1)},
        {"shards": (0, 0)},
        {"same_quarantine": False},
        {"left": 1},
    ],
    ids=str,
)
def test_anything_else_is_bad(change):
    assert not dataclasses.replace(GOOD, **change).good


def test_exactly_the_broken_videos_cannot_be_read(tmp_path):
    manifest, good = make_videos(tmp_path, 6, 5)
    readable = []
    for entry in read_manifest(manifest):
        try:
            decode(entry.path, frames=2)
            readable.append(entry.id)
        except VideoError:
            pass
    assert readable == good and len(good) == 1


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
def test_workers_are_found_and_nothing_else():
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with LocalEngine(2) as engine:
        crew = Crew(engine, make_function, give_up=max)
        results = crew.map(range(4))
        next(results)
        found = worker_processes(int(Path("/proc/self").readlink().name), "local")
        workers = [worker.process.pid for worker in engine._workers]
    other.communicate()
    assert sorted(found) == sorted(workers) and other.pid not in found


def make_function():
    return json.dumps
