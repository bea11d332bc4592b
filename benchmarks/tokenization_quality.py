"""How well trajectories follow objects: the procedural world with its ground truth, and DAVIS.

  python -m benchmarks.tokenization_quality               # 40 world clips, and DAVIS where it is
  python -m benchmarks.tokenization_quality --quick       # 6 clips, 2 sequences, no verdict
  python -m benchmarks.tokenization_quality --no_world --davis=DAVIS --sheets=sheets
  python -m benchmarks.tokenization_quality --tokenizer=mine.py \
      --tokenizer=configs/tokenization/classical.py:frames=8,split=keyframes
  python -m benchmarks.tokenization_quality --no_world --sheets=sheets --weights=FOLDER \
      --tokenizer=configs/tokenization/classical.py --tokenizer=configs/tokenization/paper.py
  python -m benchmarks.tokenization_quality --no_world --sheets=sheets --weights=random \
      --tokenizer=configs/tokenization/paper.py:segmenter=classical,tracker=edgetam

World: for each object, the IoU of its space-time tube with the best-matching trajectory, over
all frames of the video; and its identity switches: how often the trajectory that covers most of
it is another one than in the frame before in which any pixel of it was seen.

Annotated sequences (--davis names their folder: NAME/frames and NAME/masks, or DAVIS' own
layout): J and F are those of DAVIS, of the first frame's masks followed by the tracker through 16
frames, beside a mask left where it was and one carried by optical flow alone. Networks have rows
of their own where --tokenizer names them, with weights as `tokenization.extract` takes them
('random' ones show that they run, and nothing else). `union` and
`single` are mean IoUs of what the pipeline found without a mask: of the best union of
trajectories that lie in the object for the most part (8 at most, found greedily, their median
life at least half of the frames), and of the best single one. Frames a second are sampled frames
a second of one core (of the time that passes, where a CUDA device works), decoding left out. The
first tokenizer is judged, on 12 sequences or more. --sheets shows each sequence as each tokenizer
sees it: trajectories, the best union, and the first masks followed, beside the annotation.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks.parts import annotated, quality_sheets
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.plain_trackers import Copied, FlowOnly
from benchmarks.parts.quality_sheets import Found
from benchmarks.parts.timing import peak_growth
from benchmarks.parts.tracking_metrics import (
    best_cover,
    boundary_f,
    coverage,
    identity_switches,
    jaccard,
    overlaps,
    tube_ious,
)
from tokenization import pipeline, video
from tokenization.manifest import read_entries
from tokenization.protocols import Clip, Tracker
from tokenization.recorder import ExtractSettings
from tokenization.trackers.none import NoTracker
from tokenization.video import Frames
from tokenization.world import WorldSettings, load_truth, write_split
from trajvit_jax import config

TOKENIZER = "configs/tokenization/classical.py"
WORLD = "configs/tokenization/world_quality.py"
ENOUGH = 30  # clips that a verdict needs
ENOUGH_SEQUENCES = 12
LOW = 0.2  # J of a sequence that is lost
# The DAVIS sequences that the default settings of the flow tracker were chosen on.
TUNED = (
    "blackswan", "breakdance", "camel", "dog", "goat", "kite-surf", "libby", "motocross-jump",
)  # fmt: skip
BOUNDS = {"iou": 0.7, "switches": 1.0, "trajectories": 200, "coverage": 0.95}
DAVIS_BOUNDS = {"j": 0.5, "low": 2, "union": 0.7, "trajectories": 200, "frames_a_second": 2.0}
Clock = Callable[[], float]


def measure_world(
    world: str, tokenizer: pipeline.Pipeline, clips: int | None, folder: Path
) -> dict[str, int | float]:
    """Renders, encodes, decodes and tokenizes the world's clips; returns the averages."""
    chosen: Any = config.load(world)
    settings = tokenizer.settings
    manifest = write_split(
        folder,
        chosen.split,
        clips or chosen.clips,
        config.to_settings(WorldSettings, chosen.world, "world"),
        seed=chosen.seed,
    )
    entries = read_entries(manifest)
    ious, switches, counts, covered, cuts, seconds = [], [], [], [], 0, 0.0
    clock = clock_of(settings)
    for entry in tqdm(entries, desc="world", unit="clip"):
        frames = video.decode(
            entry.path,
            frames=settings.frames,
            between=settings.between,
            max_side=settings.max_side,
        )
        begin = clock()
        trajectories = tokenizer.tokenize(frames)
        seconds += clock() - begin
        truth = load_truth(manifest.parent / str(entry.extra["truth"]))
        shared = overlaps(trajectories.labels, truth.labels[frames.indices])
        seen = shared.sum((0, 2))[1:] > 0
        ious.append(tube_ious(shared)[seen])
        switches.append(identity_switches(shared)[seen])
        counts.append(len(trajectories))
        covered.append(coverage(trajectories.labels))
        cuts += len(truth.cuts)
    iou = np.concatenate(ious)
    return {
        "clips": len(entries),
        "cuts": cuts,
        "objects": iou.size,
        "iou": float(iou.mean()),
        "iou_above_half": float((iou > 0.5).mean()),
        "switches": float(np.concatenate(switches).mean()),
        "trajectories_mean": float(np.mean(counts)),
        "trajectories": int(np.max(counts)),
        "coverage": float(np.min(covered)),
        "seconds": seconds,
    }


@dataclasses.dataclass(frozen=True)
class Row:
    """One way to follow the objects of one sequence; None where the way does not go.

    Attributes:
      j: mean IoU of the first masks followed, over the frames after the first and the objects.
      f: mean F-measure of their boundaries.
      union: mean IoU of the best union of trajectories that nobody pointed at (`best_cover`).
      single: that of the best single one.
      switches: identity switches an object, among these trajectories.
      trajectories: of the sequence.
      coverage: fraction of the pixels that have one, in the frame where it is lowest.
      seconds: for a sampled frame, decoding left out; see `clock_of`.
    """

    j: float | None
    f: float | None
    seconds: float
    union: float | None = None
    single: float | None = None
    switches: float | None = None
    trajectories: int | None = None
    coverage: float | None = None


def clock_of(settings: pipeline.PipelineSettings) -> Clock:
    """Seconds of one core; those that pass, where a network runs on a CUDA device.

    The processor only waits for that, and calls return before it is done.
    """
    if not pipeline.learned_parts(settings) or settings.learned.running.device == "cpu":
        return time.process_time
    import torch

    if not torch.cuda.is_available():
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()

    return when_done


def measure_masks(
    tracker: Tracker, frames: Frames, objects: np.ndarray, clock: Clock = time.process_time
) -> tuple[Row, np.ndarray]:
    """Follows the masks of the first frame; also returns the labels, 0 = none of them.

    Trackers that need segments of every frame follow nothing.
    """
    if isinstance(tracker, NoTracker):
        return Row(j=None, f=None, seconds=0.0), np.zeros_like(objects)
    count = int(objects.max())
    rest = count + 1  # the background is followed, too
    given = np.where(objects[0] > 0, objects[0], rest).astype(np.int32)
    begin = clock()
    found = tracker.track([Clip(frames.rgb, {0: given}, frames.between)])[0]
    seconds = (clock() - begin) / len(frames.rgb)
    found = np.where(found <= count, found, 0)
    pairs = [(found == item, objects == item) for item in range(1, rest)]
    row = Row(
        j=float(np.mean([jaccard(one, other) for one, other in pairs])),
        f=float(np.mean([boundary_f(one, other) for one, other in pairs])),
        seconds=seconds,
    )
    return row, found


def add_free(
    row: Row, tokenizer: pipeline.Pipeline, frames: Frames, objects: np.ndarray
) -> tuple[Row, Found]:
    """Adds the trajectories that the whole pipeline finds, without a mask, and its time."""
    clock = clock_of(tokenizer.settings)
    begin = clock()
    labels = tokenizer.tokenize(frames).labels
    seconds = (clock() - begin) / len(frames.rgb)
    shared = overlaps(labels, objects)
    covers = tuple(best_cover(shared, item) for item in range(1, shared.shape[1]))
    row = dataclasses.replace(
        row,
        seconds=seconds,
        union=float(np.mean([cover.union for cover in covers])),
        single=float(np.mean([cover.single for cover in covers])),
        switches=float(identity_switches(shared).mean()),
        trajectories=int(labels.max()),
        coverage=coverage(labels),
    )
    return row, Found(labels, covers)


def measure_sequences(
    sequences: Sequence[annotated.Sequence],
    tokenizers: dict[str, pipeline.Pipeline],
    sheets: Path | None,
) -> tuple[dict[str, dict[str, Row]], dict[str, float | None]]:
    """Rows by way and sequence, and peak memory by way (bytes, on the first sequence).

    Ways are the given names of pipelines; the plain ones see what the first pipeline sees.
    """
    plain = [Copied(), FlowOnly()]
    rows: dict[str, dict[str, Row]] = {}
    memory: dict[str, float | None] = {}
    for sequence in tqdm(sequences, desc="annotated", unit="sequence"):
        for number, (name, tokenizer) in enumerate(tokenizers.items()):
            settings = tokenizer.settings
            frames, objects = annotated.read_sequence(
                sequence,
                frames=settings.frames,
                between=settings.between,
                max_side=settings.max_side,
            )
            clock = clock_of(settings)
            row, followed = measure_masks(tokenizer.tracker, frames, objects, clock)
            row, found = add_free(row, tokenizer, frames, objects)
            rows.setdefault(name, {})[sequence.name] = row
            if name not in memory:
                memory[name] = peak_growth(functools.partial(tokenizer.tokenize, frames))
            if sheets is not None:
                if row.j is not None:
                    found = dataclasses.replace(found, followed=followed, j=row.j)
                title = f"{name}, {sequence.name}"
                sheet = quality_sheets.compose(title, frames.rgb, objects, found)
                path = sheets / f"{_file_name(name)}-{sequence.name}.png"
                cv2.imwrite(str(path), sheet[..., ::-1])
            for tracker in plain if number == 0 else []:
                row, _ = measure_masks(tracker, frames, objects)
                rows.setdefault(tracker.name, {})[sequence.name] = row
    return rows, memory


def named(
    configs: Sequence[str], tokenizers: Sequence[pipeline.Pipeline]
) -> dict[str, pipeline.Pipeline]:
    """Pipelines by the names of their parts; by their configs where several have the same parts."""
    parts = [f"{one.segmenter.name} + {one.tracker.name}" for one in tokenizers]
    names = [
        config if parts.count(name) > 1 else name
        for config, name in zip(configs, parts, strict=True)
    ]
    return dict(zip(names, tokenizers, strict=True))


def _file_name(name: str) -> str:
    return re.sub(r"[^\w+.=-]+", "_", name.replace(" ", ""))


def mean_of(rows: Sequence[Row]) -> dict[str, float | None]:
    """Of each column; None where no row has it."""
    means: dict[str, float | None] = {}
    for field in dataclasses.fields(Row):
        values = [getattr(row, field.name) for row in rows]
        means[field.name] = None if None in values else float(np.mean(values))
    return means


def table(rows: dict[str, dict[str, Row]], memory: dict[str, float | None]) -> str:
    """Ways by their means; then the sequences of each way that finds trajectories."""
    head = ("J", "F", "union", "single", "switches", "trajectories", "coverage", "frames/s")
    columns = ("j", "f", "union", "single", "switches", "trajectories", "coverage", "seconds")
    width = 22

    def line(name: str, values: dict[str, float | None]) -> str:
        cells = []
        for title, column in zip(head, columns, strict=True):
            value = values[column]
            if value is not None and column == "seconds":
                value = 1 / max(value, 1e-9)
            digits = 0 if column == "trajectories" else 1 if column == "seconds" else 3
            cells.append(
                f"{'-' if value is None else f'{value:.{digits}f}':>{max(8, len(title) + 2)}}"
            )
        return f"{name:{width}}" + "".join(cells)

    title = "".join(f"{name:>{max(8, len(name) + 2)}}" for name in head)
    lines = [f"{'mean of sequences':{width}}{title}  peak MB"]
    for name, its in rows.items():
        peak = memory.get(name)
        lines.append(
            line(name, mean_of(list(its.values())))
            + f"{'-' if peak is None else f'{peak / 1e6:.0f}':>9}"
        )
    for name, its in rows.items():
        if name not in memory:
            continue
        lines.append(f"\n{name:{width}}{title}")
        lines += [line(sequence, dataclasses.asdict(row)) for sequence, row in its.items()]
        groups = (
            ("chosen on", [n for n in its if n in TUNED]),
            ("others", [n for n in its if n not in TUNED]),
        )
        for group, names in groups:
            if names and len(names) < len(its):
                lines.append(line(f"mean, {group}", mean_of([its[n] for n in names])))
        lines.append(f"J under {LOW}: {_lost(its.values())} of {len(its)} sequences")
    return "\n".join(lines)


def verdict(world: dict[str, int | float]) -> bool | None:
    """Whether the bounds of the world hold; None for too few clips to tell."""
    if world["clips"] < ENOUGH:
        return None
    return (
        world["iou"] >= BOUNDS["iou"]
        and world["switches"] < BOUNDS["switches"]
        and world["trajectories"] <= BOUNDS["trajectories"]
        and world["coverage"] > BOUNDS["coverage"]
    )


def davis_verdict(rows: Sequence[Row]) -> dict[str, bool] | None:
    """Which bounds hold of one way's sequences; None for too few sequences to tell."""
    if len(rows) < ENOUGH_SEQUENCES:
        return None
    means, bounds = mean_of(rows), DAVIS_BOUNDS
    most = max((row.trajectories or 0 for row in rows), default=0)
    return {
        "j": (means["j"] or 0.0) >= bounds["j"],
        "low": _lost(rows) <= bounds["low"],
        "union": (means["union"] or 0.0) >= bounds["union"],
        "trajectories": most <= bounds["trajectories"],
        "frames_a_second": 1 / max(means["seconds"] or 0.0, 1e-9) >= bounds["frames_a_second"],
    }


def _lost(rows: Iterable[Row]) -> int:
    return sum(row.j is not None and row.j < LOW for row in rows)


def show_davis_verdict(holds: dict[str, bool] | None, sequences: int) -> None:
    """Prints each bound and whether it holds."""
    if holds is None:
        print(f"bounds: no verdict on {sequences} sequences, it needs {ENOUGH_SEQUENCES}")
        return
    for name, bound in DAVIS_BOUNDS.items():
        print(f"bound {name:16} {bound:5}  {'holds' if holds[name] else 'FAILS'}")


def show_world(
    world: str, tokenizer: pipeline.Pipeline, results: dict[str, Any], *, quick: bool
) -> bool | None:
    """Measures the world, prints its numbers, notes them, and returns the verdict."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = measure_world(world, tokenizer, 6 if quick else None, Path(folder))
    results["world"] = numbers
    print(f"\nprocedural world ({world}), {tokenizer.segmenter.name} + {tokenizer.tracker.name}")
    for name, value in numbers.items():
        print(f"  {name:18} {value:8.3f}" if isinstance(value, float) else f"  {name:18} {value:8}")
    holds = verdict(numbers)
    said = {
        True: "hold",
        False: "DO NOT HOLD",
        None: f"no verdict on {numbers['clips']} clips, it needs the full run ({ENOUGH} or more)",
    }
    print(f"  bounds {BOUNDS}: {said[holds]}")
    return holds


def sequences_of(args: argparse.Namespace) -> list[annotated.Sequence]:
    """The annotated sequences that the arguments ask for.

    Raises:
      ValueError: a folder without sequences, or without one that is named; or nothing is left to
        measure.
    """
    root = args.davis
    if root is None and "TRAJVIT_TEST_DATA" in os.environ:
        root = Path(os.environ["TRAJVIT_TEST_DATA"]) / "davis"
        root = root if root.is_dir() else None
    if root is None:
        needed = "give --davis=FOLDER, or set TRAJVIT_TEST_DATA to a folder with davis/"
        if args.no_world:
            raise ValueError(f"--no_world leaves the annotated sequences alone: {needed}")
        print(f"\nannotated sequences: skipped, {needed}")
        return []
    found = annotated.find_sequences(root)
    if args.sequences:
        names = args.sequences.split(",")
        if unknown := set(names) - {sequence.name for sequence in found}:
            raise ValueError(f"--sequences: {root} has no {', '.join(sorted(unknown))}")
        found = [sequence for sequence in found if sequence.name in names]
    return found[:2] if args.quick else found


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit code is 1 where a bound does not hold, 0 without a verdict."""
    parser = parser_of(__file__, __doc__, quick="few clips, a minute; no verdict")
    parser.add_argument("--config", default=WORLD, help=f"the world ({WORLD})")
    parser.add_argument(
        "--tokenizer",
        action="append",
        metavar="CONFIG",
        help=f"a pipeline, once for each of several ({TOKENIZER})",
    )
    parser.add_argument(
        "--davis", type=Path, help="annotated sequences ($TRAJVIT_TEST_DATA/davis where that is)"
    )
    parser.add_argument("--sequences", help="names of sequences, with commas (all)")
    parser.add_argument("--weights", help="of networks: see python -m tokenization.extract --help")
    parser.add_argument("--no_world", action="store_true", help="annotated sequences only")
    parser.add_argument(
        "--sheets", type=Path, help="folder for pictures: one a sequence and pipeline"
    )
    args = parser.parse_args(arguments)
    cv2.setNumThreads(1)
    configs = list(dict.fromkeys(args.tokenizer or [TOKENIZER]))
    chosen = [
        config.to_settings(ExtractSettings, config.load(name), "tokenizer").pipeline
        for name in configs
    ]
    tokenizers = [pipeline.build(one, args.weights) for one in chosen]
    results: dict[str, Any] = {"settings": [dataclasses.asdict(one) for one in chosen]}
    broken = False
    if not args.no_world:
        holds = results["bounds_hold"] = show_world(
            args.config, tokenizers[0], results, quick=args.quick
        )
        broken = holds is False
    sequences = sequences_of(args)
    if sequences:
        if args.sheets:
            args.sheets.mkdir(parents=True, exist_ok=True)
        ways = named(configs, tokenizers)
        rows, memory = measure_sequences(sequences, ways, args.sheets)
        print(f"\n{table(rows, memory)}")
        results["davis"] = {
            name: {sequence: dataclasses.asdict(row) for sequence, row in its.items()}
            for name, its in rows.items()
        }
        results["peak_bytes"] = memory
        judged = list(rows[next(iter(ways))].values())
        bounds = results["davis_bounds_hold"] = davis_verdict(judged)
        show_davis_verdict(bounds, len(judged))
        broken |= bounds is not None and not all(bounds.values())
    write_json(args.json, results)
    return 1 if broken else 0


if __name__ == "__main__":
    run_command(main)
