"""What a run says at its end: what is to be looked at, by name."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from tests.tokenization.extraction import SETTINGS, Grid, read, run
from tokenization import records
from tokenization.engines.inline import InlineEngine
from tokenization.extract import extract
from tokenization.records import ShardInfo
from tokenization.shards import stats
from tokenization.summary import Summary, summarize
from tokenization.trajectories import Trajectories


class Blind(Grid):
    """Finds nothing in the videos that it is told."""

    def __init__(self, settings, *, hidden=()):
        super().__init__(settings)
        self.hidden = hidden

    def tokenize(self, frames):
        if frames.video.id not in self.hidden:
            return super().tokenize(frames)
        return Trajectories.from_labels(
            np.zeros(frames.rgb.shape[:3], np.int32),
            frame_times=frames.times,
            key_frames=np.arange(len(frames.times)) == 0,
            video=frames.video,
        )


@pytest.mark.parametrize("hidden", [("b",), ("a", "b")])
def test_videos_without_trajectories_are_no_success(clips, tmp_path, hidden):
    clips.video("clip.mp4")
    entries = read(clips.root, [{"id": name, "path": "clip.mp4"} for name in "ab"])
    summary = extract(
        entries,
        tmp_path / "out",
        SETTINGS,
        build=functools.partial(Blind, hidden=hidden),
        engine=InlineEngine(),
    )
    assert summary.empty == hidden
    number = "1 video" if len(hidden) == 1 else "2 videos"
    assert f"{number} without any trajectory: {', '.join(hidden)}" in str(summary)
    assert "fewer tokens" not in str(summary)
    assert f"Without any trajectory: {', '.join(hidden)}" in (tmp_path / "out/stats.md").read_text()
    assert "without any trajectory" not in str(run(entries, tmp_path / "all"))


def test_damaged_videos_are_named(clips, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    content = bytearray(clips.video("sound.mp4", noise).read_bytes())
    middle, size = int(0.4 * len(content)), len(content) // 4
    content[middle : middle + size] = np.random.default_rng(1).bytes(size)
    clips.data("damaged.mp4", bytes(content))
    names = ("damaged", "sound")
    entries = read(clips.root, [{"id": name, "path": f"{name}.mp4"} for name in names])
    summary = run(entries, tmp_path / "out")
    assert (summary.videos, summary.quarantine) == (2, ())
    ((name, frames),) = summary.damaged
    assert name == "damaged" and frames > 3
    assert "1 video with damaged frames, which were passed over" in str(summary)
    assert f"damaged ({frames} frames)" in str(summary)
    assert f"damaged ({frames})" in (tmp_path / "out" / "stats.md").read_text()
    assert run(entries, tmp_path / "out").damaged == summary.damaged  # kept beside the shard
    assert len(records.open_records(tmp_path / "out")) == 2


def test_notes_of_before_are_read():
    """They count short videos, without their names, and no damage."""
    info = ShardInfo("train", 0, 32, ids=("a", "b"), trajectories=(3, 4), frames=(4, 4), repeated=1)
    summary = summarize([info], skipped=0, run=None)
    assert (summary.repeated, summary.short, summary.damaged) == (1, (), ())
    assert "1 video with fewer frames than asked: the last one is repeated" in str(summary)


def test_many_are_not_all_named():
    short = tuple(f"v{number}" for number in range(7))
    summary = Summary(7, 28, 70, 700, (), 7, 0, 1.0, short=short, empty=short)
    assert "without any trajectory: v0, v1, v2, v3, v4 and 2 more (stats.md)" in str(summary)
    names = tuple(f"v{number}" for number in range(1003))
    zeros = (0,) * len(names)
    info = ShardInfo("train", 0, 32, ids=names, trajectories=zeros, frames=zeros, short=names)
    for title in ("Without any trajectory", "With fewer frames than asked"):
        (line,) = (line for line in stats([info]).splitlines() if line.startswith(title))
        assert line.endswith(", v998, v999 and 3 more (shards/*.json)")
