"""Sampled frames a second from video file to record, stage by stage.

  python -m benchmarks.extraction                     # 6 world clips of 512x288, made here
  python -m benchmarks.extraction --input='videos/*.mp4'
  python -m benchmarks.extraction --quick --json=extraction.json

One process first, with a clock around each stage; then two processes at once, timed as a whole.
OpenCV and the decoder use one thread a process.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import multiprocessing
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import cv2

from tokenization import pipeline, records, shards, video
from tokenization.recorder import ExtractSettings
from tokenization.trackers import flow
from tokenization.world import WorldSettings, write_split
from trajvit_jax import config

BOUND = 5.0
STAGES = {
    "key frames": (pipeline, "clip_starts"),
    "segmentation": (pipeline.ClassicalSegmenter, "segment"),
    "superpixels": (flow, "superpixels"),
    "optical flow": (flow, "origins"),
    "likeness": (flow.Memory, "distances"),
    "linking": (pipeline, "link_clips"),
    "tracking": (flow.FlowTracker, "track"),
}
INSIDE = {"tracking": ("superpixels", "optical flow", "likeness")}


@contextlib.contextmanager
def clocks() -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(name: str, function):
        def call(*args, **keywords):
            begin = time.perf_counter()
            try:
                return function(*args, **keywords)
            finally:
                seconds[name] += time.perf_counter() - begin

        return call

    with contextlib.ExitStack() as stack:
        for name, (owner, attribute) in STAGES.items():
            function = timed(name, getattr(owner, attribute))
            stack.enter_context(mock.patch.object(owner, attribute, function))
        yield seconds


def extract(paths: list[str], settings: ExtractSettings) -> dict[str, float]:
    """Tokenizes the videos in this process; returns seconds by stage, and "frames"."""
    cv2.setNumThreads(1)
    chosen = settings.pipeline
    tokenizer = pipeline.build(chosen)
    spent: dict[str, float] = defaultdict(float)
    with clocks() as inner, tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            begin = time.perf_counter()
            frames = video.decode(path, frames=chosen.frames, max_side=chosen.max_side, threads=1)
            decoded = time.perf_counter()
            trajectories = tokenizer.tokenize(frames)
            tokenized = time.perf_counter()
            record = records.Record.squash(trajectories, frames.rgb, size=settings.record_size)
            (Path(folder) / str(number)).write_bytes(shards.serialize(record))
            spent["decoding"] += decoded - begin
            spent["tokenizing"] += tokenized - decoded
            spent["writing"] += time.perf_counter() - tokenized
            spent["frames"] += len(frames.rgb)
    spent.update(inner)
    for whole, parts in INSIDE.items():
        spent[f"{whole}, other"] = spent.pop(whole) - sum(spent[part] for part in parts)
    return dict(spent)


def _silent(paths: list[str], settings: ExtractSettings) -> float:
    return extract(paths, settings)["frames"]


def in_processes(paths: list[str], settings: ExtractSettings, processes: int) -> float:
    """Frames a second of several processes at once, after they have started."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(processes) as pool:
        jobs = [(paths[i::processes], settings) for i in range(processes)]
        pool.starmap(_silent, [(job[0][:1], settings) for job in jobs], chunksize=1)
        begin = time.perf_counter()
        frames = sum(pool.starmap(_silent, jobs, chunksize=1))
        return frames / (time.perf_counter() - begin)


def made_clips(count: int, folder: str) -> list[str]:
    """World clips of 512x288 with cuts, texture and camera motion."""
    world = WorldSettings(
        width=512, height=288, frames=32, fps=16, min_objects=3, max_objects=5, moving_extras=0.8,
        sizes=(0.08, 0.12, 0.17), min_travel=0.15, min_speed=0.005, max_speed=0.02,
        camera_pan=0.01, cut_probability=0.3,
    )  # fmt: skip
    manifest = write_split(folder, "test", count, world, progress=False)
    return sorted(str(path) for path in (manifest.parent / "videos").glob("*.mp4"))


def main() -> int:
    """Runs the benchmark; the exit code is 1 below 5 frames a second in two processes."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extraction",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two clips, under a minute")
    parser.add_argument("--json", type=Path, help="write all numbers to this file, too")
    parser.add_argument("--input", help="videos to read instead (a glob pattern)")
    tokenizer = "configs/tokenization/classical.py"
    parser.add_argument("--config", default=tokenizer, help=f"({tokenizer})")
    args = parser.parse_args()
    settings = config.to_settings(ExtractSettings, config.load(args.config))
    with tempfile.TemporaryDirectory() as folder:
        count = 2 if args.quick else 6
        paths = (
            sorted(map(str, Path().glob(args.input)))[:count]
            if args.input
            else made_clips(count, folder)
        )
        if not paths:
            parser.error(f"--input={args.input} matches no file")
        extract(paths[:1], settings)
        begin = time.perf_counter()
        spent = extract(paths, settings)
        seconds = time.perf_counter() - begin
        frames = spent.pop("frames")
        tokenizing = spent.pop("tokenizing")
        spent["other"] = seconds - sum(spent.values())
        two = in_processes(paths, settings, 2)
    print(f"{len(paths)} videos, {frames:.0f} sampled frames; ms a frame in one process:")
    for stage, value in spent.items():
        print(f"  {stage:20} {1e3 * value / frames:7.1f}")
    print(f"  {'tokenizing, all':20} {1e3 * tokenizing / frames:7.1f}")
    print(f"frames a second: {frames / seconds:.1f} in one process, {two:.1f} in two")
    if args.json:
        result = {
            "ms_a_frame": {stage: 1e3 * value / frames for stage, value in spent.items()},
            "frames_a_second": {"1": frames / seconds, "2": two},
            "settings": dataclasses.asdict(settings),
        }
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if two >= BOUND else 1


if __name__ == "__main__":
    raise SystemExit(main())
