"""Memory of a process that extracts: what it keeps of a video does not grow with its length."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

MEASURE = """
import resource, sys
from pathlib import Path
from tokenization import pipeline
from tokenization.manifest import Entry
from tokenization.recorder import ExtractSettings, Recorder

settings = ExtractSettings(pipeline.PipelineSettings(frames=4, max_side=320), record_size=64)
outcome = Recorder(settings, pipeline.build).one(Entry("a", Path(sys.argv[1])))
assert outcome.quarantined is None, outcome.quarantined
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def peak(path) -> int:
    """Megabytes of a process that makes the record of one video."""
    line = [sys.executable, "-c", MEASURE, str(path)]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_long_video_takes_no_more_memory_than_a_short_one(clips):
    """All frames of the long one would take 207 MB."""
    ramp = np.arange(320, dtype=np.uint8)[None, :, None] + np.zeros((180, 1, 3), np.uint8)

    def video(name: str, frames: int):
        rgb = (np.roll(ramp, 3 * index, axis=1) for index in range(frames))
        return clips.video(name, np.stack(list(rgb)), fps=30, g="250")

    short, long = video("short.mp4", 30), video("long.mp4", 1200)
    assert peak(long) - peak(short) < 60
