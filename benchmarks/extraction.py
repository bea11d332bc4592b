"""Sampled frames a second from video file to finished shard, stage by stage.

  python -m benchmarks.extraction                        # 6 world clips of 512x288, made here
  python -m benchmarks.extraction --input='videos/*.mp4' # all of them; also a manifest or folder
  python -m benchmarks.extraction --quick --json=extraction.json
  python -m benchmarks.extraction --config=configs/tokenization/paper.py --weights=random

First `tokenization.extract` in one process, with a clock around each stage; then two processes at
once, timed as a whole from when both have started. OpenCV, the decoder, and PyTorch on the CPU use
one thread a process (OMP_NUM_THREADS tells PyTorch another number); networks get 8 videos at once,
as in an extraction. With --weights=random DirectSAM may find no segment, which leaves nothing to
track: `:segmenter=classical` gives the tracker objects. On a GPU, which both processes share, its
memory is told, too. The exit code is 1 if two processes without networks are below 5 frames a
second.

Segments are linked between clips only for trackers that cannot start labels; the row for them
makes the embedded tracker run like one: clip by clip, then linked.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.synchronize import Barrier

import cv2
import numpy as np
from jaxtyping import Int32

from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.function_clocks import Stages, clocks, gpu_memory
from tokenization import pipeline, shards, video
from tokenization.engines.inline import InlineEngine
from tokenization.engines.local import networks_use_one_thread
from tokenization.extract import extract
from tokenization.manifest import Entry, read_entries
from tokenization.pipeline import Pipeline, PipelineSettings
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

TOGETHER = 8  # videos that networks get at once, as `tokenization.extract` gives them

INSIDE_TRACKING: Stages = {
    "superpixels": ((views, "superpixels"),),
    "optical flow": ((views, "origins"), (views, "origins_both_ways")),
    "merging": ((flow, "tubes_of"), (flow, "merge_tubes")),
}

Build = Callable[[PipelineSettings], Pipeline]


def stages_of(tokenizer: Pipeline) -> Stages:
    """The functions that make up each stage, by the names under which the product calls them."""
    segmenter, tracker = type(tokenizer.segmenter), type(tokenizer.tracker)
    ways = [name for name in ("track", "discover") if hasattr(tracker, name)]
    return {
        "decoding": ((video, "decode"),),
        "key frames": ((pipeline, "clip_starts"),),
        "segmentation": ((segmenter, "segment"),),
        **(INSIDE_TRACKING if tracker is flow.FlowTracker else {}),
        "tracking": tuple((tracker, name) for name in ways),
        "linking": ((pipeline, "link_clips"),),
        "resizing": ((Record, "squash"),),
        "writing": ((shards, "serialize"), (shards, "write_shard"), (shards, "write_metadata")),
    }


@dataclasses.dataclass(frozen=True)
class Measured:
    """One run in this process.

    Attributes:
      frames: sampled, of all videos that could be read.
      seconds: of the whole run.
      stages: seconds in each of `stages_of`; those of "tracking" include `INSIDE_TRACKING`.
      unread: videos that could not be read, and why.
      gpu_bytes: the most that PyTorch had allocated; None = it used no GPU.
    """

    frames: int
    seconds: float
    stages: dict[str, float]
    unread: tuple[Quarantined, ...] = ()
    gpu_bytes: int | None = None

    def rows(self) -> dict[str, float]:
        """Seconds that add up to the whole: "tracking" split into its parts, and the rest."""
        parts = [self.stages[part] for part in INSIDE_TRACKING if part in self.stages]
        rows = {}
        for name, seconds in self.stages.items():
            if name == "tracking" and parts:
                name, seconds = "labels", seconds - sum(parts)
            rows[name] = seconds
        return {**rows, "other": self.seconds - sum(rows.values())}


def in_one_process(
    entries: Sequence[Entry], settings: ExtractSettings, tokenizer: Pipeline
) -> Measured:
    """Extracts the videos into a dataset, in this process, with a tokenizer that is made."""
    cv2.setNumThreads(1)
    with (
        tempfile.TemporaryDirectory() as folder,
        clocks(stages_of(tokenizer)) as stages,
        gpu_memory() as most,
    ):
        begin = time.perf_counter()
        summary = extract(
            entries,
            folder,
            settings,
            engine=InlineEngine(),
            build=lambda _: tokenizer,
            together=together(settings),
        )
        seconds = time.perf_counter() - begin
    return Measured(summary.frames, seconds, stages, summary.quarantine, *most)


def together(settings: ExtractSettings) -> int:
    """Videos that go through the tokenizer at once."""
    return TOGETHER if pipeline.learned_parts(settings.pipeline) else 1


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


def link_path(entries: Sequence[Entry], settings: ExtractSettings, tokenizer: Pipeline) -> Measured:
    """Tokenizes the videos clip by clip, each through the next one's first frame, and links."""
    chosen, stages_there = settings.pipeline, stages_of(tokenizer)
    tokenizer = dataclasses.replace(tokenizer, tracker=ClipByClip(tokenizer.tracker))
    frames = 0
    with clocks(stages_there) as stages:
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


def _start(settings: ExtractSettings, build: Build, first: Sequence[Entry], ready: Barrier) -> None:
    global _recorder
    cv2.setNumThreads(1)
    networks_use_one_thread()
    _recorder = Recorder(settings, build)
    _recorder(first)  # imports and caches
    ready.wait(START_SECONDS)


def _record(entries: Sequence[Entry]) -> list[Outcome]:
    assert _recorder is not None
    return _recorder(entries)


def in_processes(
    entries: Sequence[Entry], settings: ExtractSettings, build: Build, processes: int
) -> float:
    """Frames a second of several processes and the writing of their shard, once all started."""
    size = together(settings)
    groups = [entries[first : first + size] for first in range(0, len(entries), size)]
    context = multiprocessing.get_context("spawn")
    ready = context.Barrier(processes + 1)
    with (
        tempfile.TemporaryDirectory() as folder,
        context.Pool(processes, _start, (settings, build, groups[0], ready)) as pool,
    ):
        ready.wait(START_SECONDS)
        begin = time.perf_counter()
        done = itertools.chain.from_iterable(pool.imap(_record, groups))
        outcomes = [outcome for outcome in done if outcome.quarantined is None]
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 1 below 5 frames a second in two processes."""
    parser = parser_of(__file__, __doc__, quick="the first two videos only")
    parser.add_argument("--input", help="manifest (*.jsonl), folder, video or quoted pattern")
    parser.add_argument("--config", default=TOKENIZER, help=f"({TOKENIZER})")
    parser.add_argument("--weights", help="of networks, as for tokenization.extract; or 'random'")
    args = parser.parse_args(arguments)
    settings = config.to_settings(ExtractSettings, config.load(args.config))
    learned = bool(pipeline.learned_parts(settings.pipeline))
    build = functools.partial(pipeline.build, weights=args.weights)
    networks_use_one_thread()
    prepared = pipeline.prepare(settings.pipeline, args.weights)
    settings = dataclasses.replace(settings, pipeline=prepared)
    tokenizer = build(prepared)
    with tempfile.TemporaryDirectory() as folder:
        if args.input:
            entries = read_entries(args.input)
        else:
            entries = made_clips(QUICK if args.quick else MADE, folder)
        if args.quick:
            print(f"--quick: the first {QUICK} of {len(entries) if args.input else MADE} videos")
            entries = entries[:QUICK]
        in_one_process(entries[:1], settings, tokenizer)  # imports and caches
        one = in_one_process(entries, settings, tokenizer)
        for bad in one.unread:
            print(f"not read: {bad.path}: {bad.reason}")
        if not one.frames:
            parser.error("none of the videos can be read")
        unread = {bad.id for bad in one.unread}
        readable = [entry for entry in entries if entry.id not in unread]
        apart = tokenizer.tracker.gives_birth
        linked = link_path(readable, settings, tokenizer) if apart else one
        two = in_processes(readable, settings, build, 2)
    per_frame = {stage: 1e3 * value / one.frames for stage, value in one.rows().items()}
    linking = 1e3 * linked.stages["linking"] / linked.frames
    holds = two >= BOUND
    print(f"{len(readable)} videos, {one.frames} sampled frames; ms a frame in one process:")
    for stage, value in per_frame.items():
        print(f"  {stage:14} {value:7.1f}")
    print(f"  {'all':14} {1e3 * one.seconds / one.frames:7.1f}")
    if apart:
        print(f"linking where the tracker starts no labels (run apart): {linking:.1f} ms a frame")
    print(f"frames a second: {one.frames / one.seconds:.1f} in one process, {two:.1f} in two")
    if one.gpu_bytes is not None:
        print(f"the most memory that PyTorch had allocated: {one.gpu_bytes / 2**30:.2f} GiB")
    if not learned:
        said = "holds" if holds else "DOES NOT HOLD"
        print(f"bound of {BOUND:g} frames a second in two processes (at 512x288): {said}")
    result = {
        "ms_a_frame": per_frame,
        "linking_apart_ms_a_frame": linking if apart else None,
        "frames_a_second": {"1": one.frames / one.seconds, "2": two},
        "gpu_bytes": one.gpu_bytes,
        "bound_holds": None if learned else holds,
        "settings": dataclasses.asdict(settings),
    }
    write_json(args.json, result)
    return 0 if learned or holds else 1


if __name__ == "__main__":
    run_command(main)
