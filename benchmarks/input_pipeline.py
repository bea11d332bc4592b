"""Videos a second a core from records to batches, stage by stage, and cores for a GPU.

  python -m benchmarks.input_pipeline                          # records made here
  python -m benchmarks.input_pipeline --records=runs/records   # your own
  python -m benchmarks.input_pipeline --quick --json=input.json
  python -m benchmarks.input_pipeline --rate=120               # videos/s that a GPU trains on
  python -m benchmarks.input_pipeline --demo=runs/demo/records # the demo's own records

First one thread, with a clock around each stage: CPU time, so that what else the machine does
counts little. Then the whole pipeline, packed, with threads and with worker processes: videos a
second, and a second of CPU time. The step either crops (frames and labels are handed over as they
are stored) or not (the host resizes them). The cores that a GPU needs are its videos a second over
the pipeline's videos a second of CPU time, threads of one process, if that keeps so many busy; by
default the GPU's are those of docs/SCALING.md, before it exchanges anything.

The records made here are 16 frames of 256x256, and single frames: blurred noise that takes about
as many bytes as real video, with 150 (50) trajectories.

At last both models of configs/demo.py train on records of the demo's shape (8 frames of 128x128),
none of which stays in memory: the share of a step that waits for data must be under 5%. The exit
code is 1 where it is not; --quick gives no verdict.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.parts import data_wait
from benchmarks.parts.arguments import count, count_or_none, positive
from benchmarks.parts.command import parser_of, run_command, write_json
from tokenization import record_source as stored
from tokenization.records import Record, RecordSource, open_records, read_captions
from tokenization.shards import write_records
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.data import steps
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.schedule import SourceSettings, StreamSettings
from trajvit_jax.data.steps import Part, ReadingSettings, Samples, train_steps
from trajvit_jax.data.streams import Stream
from trajvit_jax.data.wordpiece import WordPiece
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.run.provenance import commit

# What an H100 trains on in a second at 25% and 45% of its peak, by `benchmarks.cost_model`: ViT3D-L
# and TrajViT-L on videos, ViT-L and TrajViT-L on images.
RATES = {"videos": (67, 121, 526, 947), "images": (595, 1070, 1120, 2016)}
AT_ONCE = 32  # records of a batched read
_DEMO_RECORDS = (("train", 640), ("test", 32))


@dataclasses.dataclass(frozen=True)
class Stages:
    """CPU seconds of one thread, by stage, each without the stages within it."""

    videos: int
    seconds: dict[str, float]

    @property
    def rate(self) -> float:
        """Videos a second of CPU time."""
        return self.videos / sum(self.seconds.values())


@dataclasses.dataclass(frozen=True)
class Whole:
    """The whole pipeline.

    Attributes:
      name: threads or workers.
      rate: videos a second.
      core_rate: videos a second of CPU time, that of worker processes counted.
    """

    name: str
    rate: float
    core_rate: float


def make_records(
    folder: Path,
    number: int,
    frames: int,
    trajectories: int,
    *,
    size: int = 256,
    split: str = "train",
) -> None:
    """Blurred noise that drifts, under cells that drift along."""
    rng = np.random.default_rng(frames)
    margin = size // 4

    def one(i: int) -> Record:
        wide = rng.normal(size=(size + margin, size + margin, 3)).astype(np.float32)
        coarse, fine = cv2.GaussianBlur(wide, (0, 0), 12), cv2.GaussianBlur(wide, (0, 0), 1)
        picture = np.clip(128 + 900 * coarse + 40 * fine, 0, 255).astype(np.uint8)
        seeds = np.ones((size + margin, size + margin), np.uint8)
        seeds.flat[rng.choice(seeds.size, trajectories, replace=False)] = 0
        labelled = cv2.distanceTransformWithLabels(
            seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
        )
        cells = np.asarray(labelled[1])
        shifts = [t * margin // max(frames, 1) for t in range(frames)]
        pixels = np.stack([picture[s : s + size, s : s + size] for s in shifts])
        labels = np.stack([cells[s : s + size, s : s + size] for s in shifts])
        return Record(
            Trajectories.from_labels(
                labels,
                frame_times=np.arange(frames, dtype=np.float32),
                key_frames=np.arange(frames) == 0,
                video=VideoInfo(f"noise{i:03}", size, size, 1.0, float(frames)),
            ),
            pixels,
            (f"a drifting picture, number {i}",),
        )

    made = map(one, tqdm(range(number), desc="making records", leave=False))
    write_records(folder, made, split=split)


@contextlib.contextmanager
def cpu_clocks(places: dict[str, tuple[Any, str]]) -> Iterator[dict[str, float]]:
    """CPU seconds of this thread in each function while the block runs, nested ones left out."""
    seconds = dict.fromkeys(places, 0.0)
    inner: list[float] = []

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            inner.append(0.0)
            begin = time.thread_time()
            try:
                return function(*args, **keywords)
            finally:
                whole = time.thread_time() - begin
                seconds[stage] += whole - inner.pop()
                if inner:
                    inner[-1] += whole

        return call

    with contextlib.ExitStack() as stack:
        for stage, (owner, name) in places.items():
            function = timed(stage, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, function))
        yield seconds


def by_stage(
    source: RecordSource, model: ModelSettings, text: WordPiece, *, resize: bool
) -> Stages:
    """One thread reads about every record once and stacks four at a time."""
    part = Part(one_stream(source, model, 4), 0, model, text, 0, 0, 1, resize)
    samples, examples = Samples(part), source._examples
    videos = len(source) // part.size * part.size
    samples(videos)  # what is set up once
    places = {
        "read": (type(examples.data_source), "__getitem__"),
        "parse": (type(examples.dataset_info.features), "deserialize_example_np"),
        "JPEG": (cv2, "imdecode"),
        "zlib": (zlib, "decompress"),
        "check": (Trajectories, "__post_init__"),
        "record": (stored, "decode"),
        "resize": (steps, "resized"),
        "slots": (steps, "in_slots"),
        "text": (WordPiece, "__call__"),
        "batch": (steps, "stack_samples"),
    }
    with cpu_clocks(places) as seconds:
        begin = time.thread_time()
        for first in range(0, videos, part.size):
            steps.stack_samples([samples(first + i) for i in range(part.size)])
        whole = time.thread_time() - begin
    return Stages(videos, seconds | {"other": whole - sum(seconds.values())})


def one_stream(source: RecordSource, model: ModelSettings, batch: int) -> Stream:
    """All of a batch from one source, packed."""
    settings = StreamSettings(
        "video", model.frames, batch, (SourceSettings("records"),), packing=PackingSettings(4, 2)
    )
    return Stream(settings, (source,))


def reads(source: RecordSource, rounds: int = 3) -> dict[str, float]:
    """CPU seconds a record of reading alone: one by one, and `AT_ONCE` at once."""
    files, numbers = source._examples.data_source, list(range(len(source)))
    seconds = {"one by one": 0.0, f"{AT_ONCE} at once": 0.0}
    for _ in range(rounds):
        begin = time.process_time()
        for number in numbers:
            files[number]
        middle = time.process_time()
        for first in range(0, len(numbers), AT_ONCE):
            files.__getitems__(numbers[first : first + AT_ONCE])
        end = time.process_time()
        for name, spent in zip(seconds, (middle - begin, end - middle), strict=True):
            seconds[name] += spent / rounds / len(numbers)
    return seconds


def whole(
    name: str,
    stream: Stream,
    model: ModelSettings,
    text: WordPiece,
    reading: ReadingSettings,
    *,
    resize: bool,
    number: int,
) -> Whole:
    """Runs `number` steps after two that fill what is read ahead."""
    loader = train_steps([stream], model, text, seed=0, resize=resize, reading=reading)
    for _ in range(2):
        next(loader)
    begin, begin_cpu = time.perf_counter(), cpu_seconds()
    for _ in tqdm(itertools.islice(loader, number), total=number, desc=name, leave=False):
        pass
    wall, cpu = time.perf_counter() - begin, cpu_seconds() - begin_cpu
    loader.close()
    videos = number * stream.settings.batch
    return Whole(name, videos / wall, videos / cpu)


def cpu_seconds() -> float:
    """CPU time of this process and of the workers that it has now."""
    ticks = 0
    for child in multiprocessing.active_children():
        # After the name, which may hold blanks: fields 14 and 15 of proc(5).
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, split: str, options: argparse.Namespace) -> dict[str, Any]:
    """Prints and returns everything about one dataset."""
    source = open_records(folder, split)
    frames = len(source[0].frames)
    model = ModelSettings(frames=frames)
    captions = [caption for of_one in read_captions(folder, split) for caption in of_one]
    text = WordPiece.train(captions, model.text.length, size=1000)
    batch = min(options.batch, len(source)) // 4 * 4
    if not batch:
        raise SystemExit(f"{folder} has {len(source)} records; 4 are needed")
    stream = one_stream(source, model, batch)
    size = int(np.mean([len(source._examples.data_source[i]) for i in range(len(source))]))
    what = "images" if frames == 1 else "videos"
    print(
        f"\n{folder}: {len(source)} records of {frames} frames, {size / 1e3:.0f} kB, "
        f"{source.counts.mean():.0f} trajectories; batches of {batch}"
    )
    report: dict[str, Any] = {"frames": frames, "records": len(source), "bytes": size}

    single = reads(source)
    report["read"] = single
    print("reading alone: " + ", ".join(f"{k} {1e3 * v:.2f} ms" for k, v in single.items()))
    cores = os.cpu_count() or 1
    number = 2 if options.quick else max(2, options.videos // batch)
    for resize in (False,) if options.quick else (False, True):
        mode = "resized on the host" if resize else "as stored"
        stages = by_stage(source, model, text, resize=resize)
        spent = {name: 1e3 * value / stages.videos for name, value in stages.seconds.items()}
        print(f"\n{mode}: CPU ms of one thread for one of the {what}")
        print("  " + "".join(f"{name:>8}" for name in (*spent, "all")))
        print("  " + "".join(f"{value:8.2f}" for value in (*spent.values(), sum(spent.values()))))
        print(f"  {stages.rate:.0f} {what}/s a core")
        ways = {
            "1 thread": ReadingSettings(threads=1),
            f"{cores} threads": ReadingSettings(threads=cores),
            f"{cores} workers": ReadingSettings(threads=1, workers=cores),
        }
        if options.quick and frames == 1:  # processes that start for seconds, once more
            ways.popitem()
        pipelines = [
            whole(name, stream, model, text, reading, resize=resize, number=number)
            for name, reading in ways.items()
        ]
        for one in pipelines:
            print(f"  {one.name:10} {one.rate:7.0f} {what}/s, {one.core_rate:7.0f} a core")
        core_rate = pipelines[1].core_rate
        rates = options.rate or RATES[what]
        need = ", ".join(f"{rate:g}/s: {rate / core_rate:.1f}" for rate in rates)
        print(f"  cores for a GPU that trains on so many {what}: {need}")
        report[mode] = {
            "stages": spent,
            "pipelines": [dataclasses.asdict(one) for one in pipelines],
            "cores": {f"{rate:g}": rate / core_rate for rate in rates},
        }
    return report


def demo_waits(options: argparse.Namespace, made: Path) -> list[data_wait.Waits]:
    """Trains the demo's models, and prints how long they wait for data."""
    if options.demo is None:
        for split, number in (("train", 32), ("test", 8)) if options.quick else _DEMO_RECORDS:
            make_records(made, number, 8, 13, size=128, split=split)
    records = options.demo or made
    frames = len(open_records(records, "train")[0].frames)
    steps = min(options.steps, data_wait.UNSETTLED + 4) if options.quick else options.steps
    print(f"\nsteps of configs/demo.py on {records}, no record kept in memory")
    how: dict[str, Any] = {"batch": 8, "quick": True} if options.quick else {}
    found = []
    # ViT3D's step compiles in a fifth of the time.
    for model in ("vit3d",) if options.quick else ("trajvit", "vit3d"):
        found.append(data_wait.measure(records, frames, model, steps, **how))
        print(f"  {found[-1]}")
    if not options.quick:
        verdict = "holds" if all(one.holds for one in found) else "DOES NOT HOLD"
        print(f"  bound {data_wait.BOUND:.0%}: {verdict}")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; 1 if a step of the demo waits too long for its data."""
    parser = parser_of(
        __file__,
        __doc__,
        quick="16 records as stored, two steps; one model of the demo, 14 steps: no verdict",
    )
    parser.add_argument("--records", type=Path, default=None, help="folder of records")
    parser.add_argument("--split", default="train", help="of the records (default: train)")
    parser.add_argument("--batch", type=count, default=32, help="videos (default: 32)")
    parser.add_argument(
        "--videos", type=count, default=320, help="through each whole pipeline (default: 320)"
    )
    parser.add_argument(
        "--rate",
        type=positive,
        nargs="+",
        default=None,
        help="of a GPU (default: the cost model's)",
    )
    parser.add_argument(
        "--demo", type=Path, default=None, help="records of the demo (default: made here)"
    )
    parser.add_argument(
        "--steps",
        type=count_or_none,
        default=60,
        help="that the demo's models train (default: 60; 0 = leave this out)",
    )
    options = parser.parse_args(arguments)
    report: dict[str, Any] = {
        "commit": commit(),
        "cores": os.cpu_count(),
        "batch": options.batch,
    }
    holds = True
    with tempfile.TemporaryDirectory() as made:
        if options.records:
            report["own"] = measure(options.records, options.split, options)
        else:
            for name, frames, trajectories in (("videos", 16, 150), ("images", 1, 50)):
                folder = Path(made) / name
                make_records(folder, 16 if options.quick else 96, frames, trajectories)
                report[name] = measure(folder, "train", options)
        if options.steps:
            found = demo_waits(options, Path(made) / "demo")
            holds = all(one.holds for one in found)
            report["demo"] = [dataclasses.asdict(one) for one in found]
    write_json(options.json, report)
    return 0 if holds or options.quick else 1


if __name__ == "__main__":
    run_command(main)
