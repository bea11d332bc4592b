"""What tracking costs, against the number of objects and of frames.

  python -m benchmarks.extraction_cost                    # the flow tracker
  python -m benchmarks.extraction_cost --learned          # SAM 2.1 beside it (make sam2)
  python -m benchmarks.extraction_cost --quick --learned --json=cost.json

One clip of the procedural world, 512x288; its first frame is cut into a grid of so many objects,
whatever it shows, which are then followed. Decoding and segmentation are left out: they know
nothing of objects. Seconds are those of the processor, one thread for the flow tracker; where SAM 2
runs on an accelerator, those of the clock for it.

`flow`: one flow serves all objects. `flow, discover`: the same clip by default, where labels start
in three frames and are then joined; for one number of segments, which are hints to it.

`sam2`: tiny, with random weights, whose speed is that of any weights, at a reduced resolution;
every frame is encoded once for all objects. The clips that it tracks together have different
pixels. Beside it the same model, given the objects of the same clips one by one, which encodes
every frame for each. On a CPU, which is bound by its arithmetic, batches gain little; on an
accelerator they are the point.

The last table says what 8 million videos would take at these speeds. What was not measured here
says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Int32
from tqdm import tqdm

from benchmarks.arguments import count
from benchmarks.made_clips import made_clip
from tokenization import pipeline, video
from tokenization.files import write_text
from tokenization.learned import LearnedSettings, Sam2Settings
from tokenization.pipeline import PipelineSettings
from tokenization.protocols import Clip, Discoverer
from tokenization.video import Frames

Clock = Callable[[], float]

OBJECTS, FRAMES = (10, 25, 50, 100, 200), (16, 64, 256)
VIDEOS = 8_000_000
FLAT = 1.5  # times that the flow tracker may take for the most objects
_LEARNED_FRAMES = 4


@dataclasses.dataclass(frozen=True)
class Cost:
    """One measurement.

    Attributes:
      way: `flow`, `flow, discover`, `sam2`, or `sam2, one by one`.
      objects: in the first frame of a clip.
      frames: sampled, of a clip.
      clips: tracked together (or one at a time, one by one).
      seconds: for a clip; of the processor, or of the clock on an accelerator.
      device: where.
    """

    way: str
    objects: int
    frames: int
    clips: int
    seconds: float
    device: str = "CPU"


def grid(height: int, width: int, objects: int) -> Int32[np.ndarray, "h w"]:
    """A frame cut into so many blocks of about one size, 1.. row by row."""
    rows = max(1, round((objects * height / width) ** 0.5))
    per_row = np.full(rows, objects // rows)
    per_row[: objects % rows] += 1
    first = np.concatenate([[0], np.cumsum(per_row)])
    row = np.arange(height) * rows // height
    column = np.arange(width)[None, :] * per_row[row][:, None] // width
    return (first[row][:, None] + column + 1).astype(np.int32)


def clip_of(frames: Frames, objects: int) -> Clip:
    """The video as a clip with this many objects."""
    return Clip(frames.rgb, {0: grid(*frames.rgb.shape[1:3], objects)}, frames.between)


def different_clips(frames: Frames, objects: int, clips: int) -> list[Clip]:
    """So many clips, no frame of which is in another: a tracker encodes equal frames once."""
    return [
        clip_of(dataclasses.replace(frames, rgb=np.roll(frames.rgb, 7 * i, axis=2)), objects)
        for i in range(clips)
    ]


def one_by_one(clip: Clip) -> list[Clip]:
    """The clip once for each of its objects, with that one alone."""
    first = clip.segments[0]
    return [
        dataclasses.replace(clip, segments={0: np.where(first == one, one, 0)})
        for one in np.setdiff1d(first, [0])
    ]


def from_starts(clip: Clip, tracker: Discoverer) -> Clip:
    """The clip with the objects of its first frame in every frame that labels start in."""
    starts = tracker.starts(len(clip.frames))
    return dataclasses.replace(clip, segments=dict.fromkeys(starts, clip.segments[0]))


def seconds_of(
    track: Callable[[Sequence[Clip]], object],
    clips: Sequence[Clip],
    clock: Clock = time.process_time,
    *,
    warm: bool = True,
) -> float:
    """Seconds for a clip, after one run that does not count; the labels are on the CPU then."""
    if warm:
        track(clips[:1])
    begin = clock()
    track(clips)
    return (clock() - begin) / len(clips)


def flow_costs(
    path: Path, objects: Sequence[int], frames: Sequence[int], settings: PipelineSettings
) -> list[Cost]:
    """Of the flow tracker: by objects at the fewest frames, by frames at a typical number."""
    tracker = pipeline.build(settings).tracker
    assert isinstance(tracker, Discoverer)
    typical = objects[len(objects) // 2]
    plan = [(n, frames[0]) for n in objects] + [(typical, t) for t in frames[1:]]
    found = []
    for number, t in tqdm(plan, desc="flow", unit="clip", disable=None):
        decoded = video.decode(path, frames=t, between=settings.between, max_side=settings.max_side)
        clip = clip_of(decoded, number)
        found.append(Cost("flow", number, t, 1, seconds_of(tracker.track, [clip])))
        if number == typical:
            clip = from_starts(clip, tracker)
            # Labels that were followed have warmed it.
            seconds = seconds_of(tracker.discover, [clip], warm=False)
            found.append(Cost("flow, discover", number, t, 1, seconds))
    return found


def learned_costs(path: Path, objects: Sequence[int], resolution: int, clips: int) -> list[Cost]:
    """Of SAM 2.1: all objects together, and the same ones by one and clip by clip."""
    learned = LearnedSettings(sam2=Sam2Settings(size="tiny", resolution=resolution))
    settings = PipelineSettings(
        frames=_LEARNED_FRAMES, max_side=resolution, tracker="sam2", learned=learned
    )
    tracker = pipeline.build(settings, weights="random").tracker
    device = accelerator()
    # The processor only waits for an accelerator.
    clock = time.perf_counter if device else time.process_time
    where = device or "CPU"
    decoded = video.decode(path, frames=_LEARNED_FRAMES, max_side=resolution)
    found = []
    for number in tqdm(objects, desc="sam2", unit="clip", disable=None):
        together = different_clips(decoded, number, clips)
        seconds = seconds_of(tracker.track, together, clock)
        found.append(Cost("sam2", number, _LEARNED_FRAMES, clips, seconds, where))
    few = min(objects)
    singles = [one for clip in different_clips(decoded, few, clips) for one in one_by_one(clip)]
    begin = clock()
    for single in singles:
        tracker.track([single])
    seconds = (clock() - begin) / clips
    return [*found, Cost("sam2, one by one", few, _LEARNED_FRAMES, clips, seconds, where)]


def accelerator() -> str | None:
    """Name of the GPU that learned trackers use, or None."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def report(costs: Sequence[Cost]) -> tuple[list[str], bool]:
    """The tables, and whether the flow tracker is flat in objects."""
    lines = [f"{'tracker':18} {'objects':>8} {'frames':>7} {'s a video':>10} {'ms a frame':>11}"]
    for one in costs:
        lines.append(
            f"{one.way:18} {one.objects:8} {one.frames:7} {one.seconds:10.2f} "
            f"{1e3 * one.seconds / one.frames:11.1f}"
        )
    flow = [one for one in costs if one.way == "flow"]
    by_objects = [one for one in flow if one.frames == flow[0].frames]
    growth = by_objects[-1].seconds / by_objects[0].seconds
    flat = growth <= FLAT
    lines.append(
        f"{'holds' if flat else 'FAILS'}: the flow tracker takes {growth:.2f} times as long for "
        f"{by_objects[-1].objects} objects as for {by_objects[0].objects} (bound {FLAT:g})"
    )
    learned = [one for one in costs if one.way == "sam2"]
    if learned:
        least, most = learned[0], learned[-1]
        times, more = most.seconds / least.seconds, most.objects / least.objects
        said = "sublinear" if times < more else "NOT sublinear"
        lines.append(
            f"sam2 takes {times:.1f} times as long for {more:.0f} times as many objects: {said}"
        )
        alone = next(one for one in costs if one.way == "sam2, one by one")
        lines.append(
            f"objects one by one and one clip at a time: {alone.seconds / least.seconds:.2f} times "
            f"the seconds of {least.clips} clips with {alone.objects} objects together "
            f"({alone.device})"
        )
    usual = [one for one in costs if one.way == "flow, discover"] or flow
    typical = min(usual, key=lambda one: (abs(one.objects - 50), one.frames))
    hours = VIDEOS * typical.seconds / 3600
    lines += [
        "",
        f"8 million videos of {typical.frames} frames, videos x seconds / 3600:",
        f"  flow tracker, CPU core-hours  {hours:10,.0f}  ({typical.seconds:.2f} s a video here)",
        "  sam2, GPU-hours              not measured  (needs an accelerator and weights)",
    ]
    return lines, flat


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; the exit code is 1 where a bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.extraction_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="few objects and frames; no verdict")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--learned", action="store_true", help="SAM 2.1, too")
    parser.add_argument("--resolution", type=count, default=128, help="of SAM 2.1 (128)")
    parser.add_argument("--clips", type=count, default=2, help="that SAM 2.1 tracks together (2)")
    args = parser.parse_args(argv)
    if args.learned and not all(map(importlib.util.find_spec, ("torch", "sam2"))):
        parser.error("--learned needs torch and sam2: make sam2, or leave it out")
    objects, frames = ((10, 50), (8,)) if args.quick else (OBJECTS, FRAMES)
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = made_clip(folder, max(frames), 256 if args.quick else 512)
        costs = flow_costs(path, objects, frames, PipelineSettings())
        if args.learned:
            learned = (2, 6) if args.quick else objects
            costs += learned_costs(path, learned, args.resolution, args.clips)
    lines, flat = report(costs)
    print("\n".join(lines))
    if args.quick:
        print("--quick: no verdict on this few")
    if args.json:
        found: dict[str, Any] = {"costs": [dataclasses.asdict(one) for one in costs]}
        write_text(args.json, json.dumps(found, indent=1) + "\n")
    return 0 if flat or args.quick else 1


if __name__ == "__main__":
    raise SystemExit(main())
