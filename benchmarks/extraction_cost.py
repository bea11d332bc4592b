"""What tracking costs, against the number of objects and of frames.

  python -m benchmarks.extraction_cost                    # the flow tracker
  python -m benchmarks.extraction_cost --learned          # SAM 2.1 beside it (make sam2)
  python -m benchmarks.extraction_cost --quick --learned --json=cost.json

Clips of the procedural world, 512x288, with five frames between each two sampled ones; their first
frame is cut into a grid of so many objects, whatever it shows, which are then followed: 10 to 200
objects through the fewest frames, and a usual number of them through more. Decoding and
segmentation are left out: they know nothing of objects. Seconds are those of the processor, in one
thread; where SAM 2 runs on an accelerator, those of the clock for it. Rows are printed, and written
to --json, as they are done, and what is left to do is told.

`flow`: one flow serves all objects. Bound: the most take at most 1.5 times as long as the fewest.
`flow, discover`: the same clip by default, where labels start in three frames, each cut into the
grid, and the pieces on which all agree are joined. The more segments, the more pieces: how its time
grows is told, and has no bound.

`sam2`: tiny, with random weights, whose speed is that of any weights, at a reduced resolution;
every frame is encoded once for all objects. Bound: less than proportional to the objects.
`sam2, together`: several clips at once, of different pixels. `sam2, one by one`: the same model,
given the objects of the same clips one by one, which encodes every frame for each. On a CPU, which
is bound by its arithmetic, batches gain little; on an accelerator they are the point.

The last table says what 8 million videos would take at these speeds. What was not measured here
says so. The exit code is 1 where a bound does not hold.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Int32

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.made_clips import made_clip
from tokenization import pipeline, video
from tokenization.engines.local import networks_use_one_thread
from tokenization.learned import LearnedSettings, Sam2Settings
from tokenization.pipeline import PipelineSettings
from tokenization.protocols import Clip, Discoverer
from tokenization.video import Frames

Clock = Callable[[], float]

OBJECTS, FRAMES = (10, 25, 50, 100, 200), (16, 64, 256)
VIDEOS = 8_000_000
FLAT = 1.5  # times that the flow tracker may take for the most objects
# Rough seconds, to tell what is left: of a sampled frame; for SAM 2, and of each object in it.
_FLOW, _DISCOVER, _ENCODE, _OBJECT = 0.1, 0.2, 0.065, 0.025


@dataclasses.dataclass(frozen=True)
class Cost:
    """One measurement.

    Attributes:
      way: `flow`, `flow, discover`, `sam2`, `sam2, together`, or `sam2, one by one`.
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
    seconds: float = 0.0
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


@dataclasses.dataclass(frozen=True)
class Step:
    """A row that is to be measured.

    Attributes:
      cost: what is known of it.
      work: seconds that it will take, roughly: see `Progress`.
      track: what is timed.
      clips: what it is given; made when it is its turn.
    """

    cost: Cost
    work: float
    track: Callable[[Sequence[Clip]], object]
    clips: Callable[[], Sequence[Clip]]

    def run(self, clock: Clock = time.process_time) -> Cost:
        """The row; its labels are on the CPU when the clock is read."""
        clips = self.clips()
        begin = clock()
        self.track(clips)
        return dataclasses.replace(self.cost, seconds=(clock() - begin) / self.cost.clips)


class Source:
    """Decoded clips of the world, the last one kept: steps of one number of frames follow.

    Args:
      folder: for the files.
      width: pixels.
      between: most frames between two sampled ones.
      max_side: of the decoded frames.
    """

    def __init__(self, folder: Path, width: int, *, between: int, max_side: int) -> None:
        self._folder, self._width = folder, width
        self._between, self._max_side = between, max_side
        self._last: tuple[int, Frames] | None = None

    def frames(self, number: int) -> Frames:
        """So many sampled frames of a clip that is made for them."""
        if self._last is None or self._last[0] != number:
            self._last = None  # before the next one is in memory
            path = made_clip(self._folder, number, self._width)
            decoded = video.decode(
                path, frames=number, between=self._between, max_side=self._max_side
            )
            self._last = (number, decoded)
        return self._last[1]


def flow_steps(
    source: Source, objects: Sequence[int], frames: Sequence[int], settings: PipelineSettings
) -> list[Step]:
    """Of the flow tracker: by objects at the fewest frames, by frames at a typical number."""
    tracker = pipeline.build(settings).tracker
    assert isinstance(tracker, Discoverer)
    usual = objects[len(objects) // 2]
    steps = []
    for n, t in [(n, frames[0]) for n in objects] + [(usual, t) for t in frames[1:]]:
        clip = functools.partial(_one_clip, source, n, t)
        steps += [
            Step(Cost("flow", n, t, 1), _FLOW * t, tracker.track, clip),
            Step(
                Cost("flow, discover", n, t, 1),
                _DISCOVER * t,
                tracker.discover,
                lambda clip=clip: [from_starts(clip()[0], tracker)],
            ),
        ]
    return steps


def learned_steps(
    source: Source, objects: Sequence[int], frames: Sequence[int], resolution: int, clips: int
) -> list[Step]:
    """Of SAM 2.1: by objects and by frames; then clips together, and object by object."""
    learned = LearnedSettings(sam2=Sam2Settings(size="tiny", resolution=resolution))
    settings = PipelineSettings(max_side=resolution, tracker="sam2", learned=learned)
    tracker = pipeline.build(settings, weights="random").tracker
    where, few = accelerator() or "CPU", min(objects)

    def work(n: int, t: int) -> float:
        return t * (_ENCODE + _OBJECT * n)

    steps = [
        Step(
            Cost("sam2", n, t, 1, device=where),
            work(n, t),
            tracker.track,
            functools.partial(_one_clip, source, n, t),
        )
        for n, t in [(n, frames[0]) for n in objects] + [(few, t) for t in frames[1:]]
    ]

    def together() -> list[Clip]:
        return different_clips(source.frames(frames[0]), few, clips)

    def alone(all_of_them: Sequence[Clip]) -> None:
        for clip in all_of_them:
            for one in one_by_one(clip):
                tracker.track([one])

    least, most = clips * work(few, frames[0]), clips * few * work(1, frames[0])
    return [
        *steps,
        Step(
            Cost("sam2, together", few, frames[0], clips, device=where),
            least,
            tracker.track,
            together,
        ),
        Step(Cost("sam2, one by one", few, frames[0], clips, device=where), most, alone, together),
    ]


def _one_clip(source: Source, objects: int, frames: int) -> list[Clip]:
    return [clip_of(source.frames(frames), objects)]


class Progress:
    """Says what is left, by how long the work before took.

    Args:
      work: of all steps, roughly in seconds: only their shares count once some are done.
    """

    def __init__(self, work: float) -> None:
        self._all, self._done, self._begin = work, 0.0, time.perf_counter()
        self._say(work)

    def did(self, work: float) -> None:
        """A step is done."""
        self._done += work
        took = time.perf_counter() - self._begin
        self._say(took * (self._all - self._done) / self._done)

    def _say(self, seconds: float) -> None:
        print(f"about {seconds / 60:.1f} min left", file=sys.stderr, flush=True)


def accelerator() -> str | None:
    """Name of the GPU that learned trackers use, or None."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


HEAD = f"{'tracker':18} {'objects':>8} {'frames':>7} {'s a video':>10} {'ms a frame':>11}"


def line(one: Cost) -> str:
    """Of the table, below `HEAD`."""
    return (
        f"{one.way:18} {one.objects:8} {one.frames:7} {one.seconds:10.2f} "
        f"{1e3 * one.seconds / one.frames:11.1f}"
    )


def growth(costs: Sequence[Cost], way: str) -> tuple[float, Cost, Cost]:
    """How many times longer the most objects take than the fewest, and these two."""
    its = [one for one in costs if one.way == way]
    least, *_, most = (one for one in its if one.frames == its[0].frames)
    return most.seconds / least.seconds, least, most


def report(costs: Sequence[Cost]) -> tuple[list[str], bool]:
    """What is said below the table, and whether the bounds hold."""
    lines, kept = [], []
    times, least, most = growth(costs, "flow")
    kept.append(times <= FLAT)
    lines.append(
        f"{_said(kept[-1])}: flow: {times:.2f} times as long for {most.objects} objects as for "
        f"{least.objects} (bound {FLAT:g})"
    )
    times, least, most = growth(costs, "flow, discover")
    lines.append(
        f"flow, discover: {times:.2f} times as long for {most.objects} segments in each "
        f"frame that labels start in as for {least.objects} (no bound)"
    )
    ways = {one.way: one for one in costs}
    if "sam2" in ways:
        times, least, most = growth(costs, "sam2")
        more = most.objects / least.objects
        kept.append(times < more)
        lines.append(
            f"{_said(kept[-1])}: sam2: {times:.1f} times as long for {more:g} times as many "
            f"objects (bound: less than {more:g})"
        )
        together, alone = ways["sam2, together"], ways["sam2, one by one"]
        lines.append(
            f"objects one by one and one clip at a time: {alone.seconds / together.seconds:.2f} "
            f"times the seconds of {together.clips} clips with {alone.objects} objects together "
            f"({alone.device})"
        )
    usual = [one for one in costs if one.way == "flow, discover"]
    typical = min(usual, key=lambda one: (abs(one.objects - 50), one.frames))
    hours = VIDEOS * typical.seconds / 3600
    lines += [
        "",
        f"8 million videos of {typical.frames} frames, videos x seconds / 3600:",
        f"  flow tracker, CPU core-hours  {hours:10,.0f}  ({typical.seconds:.2f} s a video here)",
        "  sam2, GPU-hours              not measured  (needs an accelerator and weights)",
    ]
    return lines, all(kept)


def _said(holds: bool) -> str:
    return "holds" if holds else "FAILS"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; the exit code is 1 where a bound does not hold."""
    parser = parser_of(__file__, __doc__, quick="few objects and frames; no verdict")
    parser.add_argument("--learned", action="store_true", help="SAM 2.1, too")
    parser.add_argument("--resolution", type=count, default=128, help="of SAM 2.1 (128)")
    parser.add_argument("--clips", type=count, default=2, help="that SAM 2.1 tracks together (2)")
    args = parser.parse_args(arguments)
    if args.learned and not all(map(importlib.util.find_spec, ("torch", "sam2"))):
        parser.error("--learned needs torch and sam2: make sam2, or leave it out")
    objects, frames = ((10, 50), (8, 16)) if args.quick else (OBJECTS, FRAMES)
    width, settings = 256 if args.quick else 512, PipelineSettings()
    cv2.setNumThreads(1)
    networks_use_one_thread()
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = Source(folder, width, between=settings.between, max_side=settings.max_side)
        steps = flow_steps(source, objects, frames, settings)
        if args.learned:
            small = Source(folder, width, between=0, max_side=args.resolution)
            few = (2, 6) if args.quick else objects
            steps += learned_steps(small, few, frames, args.resolution, args.clips)
        print(HEAD, flush=True)
        progress = Progress(sum(step.work for step in steps))
        warm: set[str] = set()
        for step in steps:
            # The processor only waits for an accelerator.
            clock = time.process_time if step.cost.device == "CPU" else time.perf_counter
            if step.cost.clips == 1 and step.cost.way not in warm:
                warm.add(step.cost.way)
                step.run(clock)  # imports and caches; SAM 2 has them by its turn with more clips
            costs.append(step.run(clock))
            print(line(costs[-1]), flush=True)
            write_json(args.json, {"costs": [dataclasses.asdict(one) for one in costs]})
            progress.did(step.work)
    lines, kept = report(costs)
    print("\n".join(lines))
    if args.quick:
        print("--quick: no verdict on this few")
    return 0 if kept or args.quick else 1


if __name__ == "__main__":
    run_command(main)
