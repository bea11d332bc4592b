"""Sampled frames a second from video file to finished shard, stage by stage.

  python -m benchmarks.extraction                        # 6 world clips of 512x288, made here
  python -m benchmarks.extraction --input='videos/*.mp4' # all of them; also a manifest or folder
  python -m benchmarks.extraction --quick --json=extraction.json

First `tokenization.extract` in one process, with a clock around each stage; then two processes
at once, timed as a whole from when both have started. OpenCV and the decoder use one thread a
process. The exit code is 1 if two processes are below 5 frames a second.

Segments are linked between clips only for trackers that cannot start labels; the row for them
makes the embedded tracker run like one: clip by clip, then linked.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from jaxtyping import Int32

from tokenization import pipeline, shards, video
from tokenization.engines.inline import InlineEngine
from tokenization.extract import extract
from tokenization.manifest import Entry, ManifestError, read_entries
from tokenization.pipeline import ClassicalSegmenter
from tokenization.protocols import Clip, Tracker
from tokenization.recorder import ExtractSettings, Outcome, Recorder
from tokenization.records import Quarantined, Record, ShardInfo
from tokenization.trackers import flow, views
from tokenization.world import WorldSettings, write_split
from trajvit_jax import config

BOUND = 5.0  # sampled frames a second, two processes, 512x288
TOKENIZER = "configs/tokenization/classical.py"
START_SECONDS = 300.0
MADE, QUICK = 6, 2  # videos

# The functions that make up each stage, by the names under which the product calls them.
STAGES: dict[str, tuple[tuple[Any, str], ...]] = {
    "decoding": ((video, "decode"),),
    "key frames": ((pipeline, "clip_starts"),),
    "segmentation": ((ClassicalSegmenter, "segment"),),
    "superpixels": ((views, "superpixels"),),
    "optical flow": ((views, "origins"), (views, "origins_both_ways")),
    "merging": ((flow, "tubes_of"), (flow, "merge_tubes")),
    "tracking": ((flow.FlowTracker, "track"), (flow.FlowTracker, "discover")),
    "linking": ((pipeline, "link_clips"),),
    "resizing": ((Record, "squash"),),
    "writing": ((shards, "serialize"), (shards, "write_shard"), (shards, "write_metadata")),
}
INSIDE_TRACKING = ("superpixels", "optical flow", "merging")


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run in this process.

    Attributes:
      frames: sampled, of all videos that could be read.
      seconds: of the whole run.
      stages: seconds in each of `STAGES`; those of "tracking" include `INSIDE_TRACKING`.
      unread: videos that could not be read, and why.
    """

    frames: int
    seconds: float
    stages: dict[str, float]
    unread: tuple[Quarantined, ...] = ()

    def rows(self) -> dict[str, float]:
        """Seconds that add up to the whole: "tracking" split into its parts, and the rest."""
        rows = dict(self.stages)
        rows["labels"] = rows.pop("tracking") - sum(rows[part] for part in INSIDE_TRACKING)
        order = [name if name != "tracking" else "labels" for name in STAGES]
        return {**{name: rows[name] for name in order}, "other": self.seconds - sum(rows.values())}


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds spent in each of `STAGES` while the block runs; 0 for one that is not called."""
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*args, **keywords)
            finally:
                seconds[stage] += time.perf_counter() - begin

        return call

    with contextlib.ExitStack() as stack:
        for stage, functions in STAGES.items():
            for owner, attribute in functions:
                function = timed(stage, getattr(owner, attribute))
                stack.enter_context(mock.patch.object(owner, attribute, function))
        yield seconds


def in_one_process(entries: Sequence[Entry], settings: ExtractSettings) -> Measured:
    """Extracts the videos into a dataset, in this process."""
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder, clocks() as stages:
        begin = time.perf_counter()
        summary = extract(entries, folder, settings, engine=InlineEngine())
        seconds = time.perf_counter() - begin
    return Measured(summary.frames, seconds, stages, summary.quarantine)


@dataclasses.dataclass(frozen=True)
class ClipByClip:
    """A tracker made to follow only what it is given at the start of each clip."""

    tracker: Tracker
    gives_birth: bool = False

    @property
    def name(self) -> str:
        """That of the tracker."""
        return self.tracker.name

    def track(self, clips: Sequence[Clip]) -> list[Int32[np.ndarray, "_ _ _"]]:
        """See `protocols.Tracker`."""
        return self.tracker.track(clips)


def link_path(entries: Sequence[Entry], settings: ExtractSettings) -> Measured:
    """Tokenizes the videos clip by clip, each through the next one's first frame, and links."""
    chosen = settings.pipeline
    tokenizer = pipeline.build(chosen)
    tokenizer = dataclasses.replace(tokenizer, tracker=ClipByClip(tokenizer.tracker))
    frames = 0
    with clocks() as stages:
        begin = time.perf_counter()
        for entry in entries:
            decoded = video.decode(
                entry.path,
                frames=chosen.frames,
                between=chosen.between,
                start=entry.start,
                end=entry.end,
                max_side=chosen.max_side,
                threads=1,
            )
            tokenizer.tokenize(decoded)
            frames += len(decoded.rgb)
        seconds = time.perf_counter() - begin
    return Measured(frames, seconds, stages)


_recorder: Recorder | None = None  # set in each worker process


def _start(settings: ExtractSettings, first: Entry, ready: Barrier) -> None:
    global _recorder
    cv2.setNumThreads(1)
    _recorder = Recorder(settings, pipeline.build)
    _recorder.one(first)  # imports and caches
    ready.wait(START_SECONDS)


def _record(entry: Entry) -> Outcome:
    assert _recorder is not None
    return _recorder.one(entry)


def in_processes(entries: Sequence[Entry], settings: ExtractSettings, processes: int) -> float:
    """Frames a second of several processes and the writing of their shard, once all started."""
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(processes, _start, (settings, entries[0], ready)) as pool,
    ):
        ready.wait(START_SECONDS)
        begin = time.perf_counter()
        outcomes = [o for o in pool.imap(_record, entries) if o.quarantined is None]
        info = ShardInfo(
            "train",
            0,
            settings.record_size,
            ids=tuple(outcome.id for outcome in outcomes),
            trajectories=tuple(outcome.trajectories for outcome in outcomes),
            frames=tuple(outcome.frames for outcome in outcomes),
        )
        shards.write_shard(folder, info, [outcome.data for outcome in outcomes])
        return sum(info.frames) / (time.perf_counter() - begin)


def made_clips(count: int, folder: str) -> list[Entry]:
    """World clips of 512x288 with cuts, texture and camera motion."""
    world = WorldSettings(
        width=512, height=288, frames=32, fps=16, min_objects=3, max_objects=5, moving_extras=0.8,
        sizes=(0.08, 0.12, 0.17), min_travel=0.15, min_speed=0.005, max_speed=0.02,
        camera_pan=0.01, cut_probability=0.3,
    )  # fmt: skip
    return read_entries(write_split(folder, "test", count, world, progress=False))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 1 below 5 frames a second in two processes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extraction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="the first two videos only")
    parser.add_argument("--json", type=Path, help="write all numbers to this file, too")
    parser.add_argument("--input", help="manifest (*.jsonl), folder, video or quoted pattern")
    parser.add_argument("--config", default=TOKENIZER, help=f"({TOKENIZER})")
    args = parser.parse_args(argv)
    settings = config.to_settings(ExtractSettings, config.load(args.config))
    with tempfile.TemporaryDirectory() as folder:
        try:
            made = functools.partial(made_clips, QUICK if args.quick else MADE, folder)
            entries = read_entries(args.input) if args.input else made()
        except ManifestError as error:
            parser.error(str(error))
        if args.quick:
            print(f"--quick: the first {QUICK} of {len(entries) if args.input else MADE} videos")
            entries = entries[:QUICK]
        in_one_process(entries[:1], settings)  # imports and caches
        one = in_one_process(entries, settings)
        for bad in one.unread:
            print(f"not read: {bad.path}: {bad.reason}")
        if not one.frames:
            parser.error("none of the videos can be read")
        unread = {bad.id for bad in one.unread}
        readable = [entry for entry in entries if entry.id not in unread]
        linked = link_path(readable, settings)
        two = in_processes(readable, settings, 2)
    per_frame = {stage: 1e3 * value / one.frames for stage, value in one.rows().items()}
    linking = 1e3 * linked.stages["linking"] / linked.frames
    print(f"{len(readable)} videos, {one.frames} sampled frames; ms a frame in one process:")
    for stage, value in per_frame.items():
        print(f"  {stage:14} {value:7.1f}")
    print(f"  {'all':14} {1e3 * one.seconds / one.frames:7.1f}")
    print(f"linking where the tracker starts no labels (run apart): {linking:.1f} ms a frame")
    print(f"frames a second: {one.frames / one.seconds:.1f} in one process, {two:.1f} in two")
    said = "holds" if two >= BOUND else "DOES NOT HOLD"
    print(f"bound of {BOUND:g} frames a second in two processes (at 512x288): {said}")
    if args.json:
        result = {
            "ms_a_frame": per_frame,
            "linking_apart_ms_a_frame": linking,
            "frames_a_second": {"1": one.frames / one.seconds, "2": two},
            "bound_holds": two >= BOUND,
            "settings": dataclasses.asdict(settings),
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if two >= BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
