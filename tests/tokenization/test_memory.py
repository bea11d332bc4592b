"""Memory of a process that extracts: what it keeps of a video does not grow with its length."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not Path("/proc").is_dir(), reason="reads /proc/self/status")

MEASURE = """
import re, sys
from pathlib import Path
from tokenization import pipeline
from tokenization.manifest import Entry
from tokenization.recorder import ExtractSettings, Recorder

chosen = pipeline.PipelineSettings(frames=int(sys.argv[2]), max_side=int(sys.argv[3]))
settings = ExtractSettings(chosen, record_size=64)
outcome = Recorder(settings, pipeline.build).one(Entry("a", Path(sys.argv[1])))
assert outcome.quarantined is None, outcome.quarantined
# Not ru_maxrss, which begins with what the parent held when it started this process.
print(int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024)
"""


def peak(path, frames: int = 4, max_side: int = 320) -> int:
    """Megabytes of a process that makes the record of one video."""
    line = [sys.executable, "-c", MEASURE, str(path), str(frames), str(max_side)]
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


def test_a_4k_video_stays_within_what_the_command_states(clips):
    """The 39 frames that are read of it, as decoded, would take 485 MB beside the process."""
    path = clips.video("4k.mp4", clips.grey(40, 3840, 2160))
    assert peak(path, frames=16, max_side=512) < 512
