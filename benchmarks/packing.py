"""How many slots videos use, and what is dropped: padding, buckets, and packed rows.

  python -m benchmarks.packing                          # 80 clips of Panda-70M, counted beforehand
  python -m benchmarks.packing --records=runs/records   # your own; counts come from their index
  python -m benchmarks.packing --most=255 --rows=2

Batches are drawn from the counts with replacement, and every way gets the same batches. The ways:
  pad to max   one video a row of the most trajectories that a video may have
  buckets      batches of videos of like length, each padded to the most of its bucket
  first fit    each group of videos fills its own rows, in the order of the batch
  packed       trajvit_jax.data.packing: groups are put together from the whole batch

Padding and buckets take one row a video. Buckets compile one program each, and a batch then holds
videos of one length only. A table ends with the slots at which packed rows use most while they
drop less than 0.1%. The exit code is 1 if that is under 88%, for any of the counts, with every size
of group. Small groups let more devices share a batch; they cannot even out counts of which most are
alike and a few are many times as large, as those of clips with several shots.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.panda_counts import PANDA_CLIPS, PANDA_CLIPS_FROM_FIRST, PANDA_IMAGES
from tokenization.records import open_records
from trajvit_jax.data.packing import PackingSettings, plan
from trajvit_jax.data.row_fit import DROPPED, RowFit, best, fit, sizes_to_try
from trajvit_jax.run.provenance import commit

USED = 0.88  # the bound: at least; and less than DROPPED may be dropped
BUCKETS = 4

_COUNTED = {
    "trajectories of 16 frames": PANDA_CLIPS,
    "trajectories of 16 frames, followed from the first one": PANDA_CLIPS_FROM_FIRST,
    "segments of one frame, an image": PANDA_IMAGES,
}


@dataclasses.dataclass(frozen=True)
class Measured:
    """What one way makes of all batches.

    Attributes:
      way: its name.
      slots: of a video, with those left empty.
      used: share of all slots that hold a CLS or a token.
      dropped: share of trajectories that have no slot, those over the most not counted.
      worst: the same of the batch that drops most.
      programs: shapes to compile.
    """

    way: str
    slots: float
    used: float
    dropped: float
    worst: float
    programs: int = 1


def draw_batches(
    counts: Int64[np.ndarray, " n"], batch: int, number: int
) -> list[Int64[np.ndarray, " b"]]:
    """Random batches; the same ones each time."""
    rng = np.random.default_rng(0)
    return [rng.choice(counts, batch) for _ in range(number)]


def padded(batches: Sequence[Int64[np.ndarray, " b"]], most: int) -> Measured:
    """One video a row, all rows alike."""
    mean = np.mean(batches)
    return Measured("pad to max", most + 1, (mean + 1) / (most + 1), 0.0, 0.0)


def bucketed(batches: Sequence[Int64[np.ndarray, " b"]], most: int) -> Measured:
    """One video a row, as long as the bucket's longest; buckets hold equally many videos."""
    counts = np.concatenate(batches)
    ends = (
        np.quantile(counts, np.arange(1, BUCKETS) / BUCKETS, method="inverted_cdf")
        .astype(np.int64)
        .tolist()
    )
    limits = np.array(sorted({*ends, most}))
    slots = limits[np.searchsorted(limits, counts)] + 1
    used = (counts + 1).sum() / slots.sum()
    return Measured(f"{len(limits)} buckets", slots.mean(), used, 0.0, 0.0, len(limits))


def first_fit(batches: Sequence[Int64[np.ndarray, " b"]], shape: PackingSettings) -> Measured:
    """Each group fills its own rows, first come first served."""

    def kept(counts: Int64[np.ndarray, " b"]) -> Int64[np.ndarray, " b"]:
        kept = np.zeros_like(counts)
        for first in range(0, len(counts), shape.group):
            room = [shape.slots] * shape.rows
            for video in range(first, first + shape.group):
                size = int(counts[video]) + 1
                row = next((r for r in range(shape.rows) if room[r] >= size), None)
                row = int(np.argmax(room)) if row is None else row
                kept[video] = max(0, min(size, room[row]) - 1)
                room[row] -= min(size, room[row])
        return kept

    slots = shape.rows * shape.slots / shape.group
    left = [kept(counts) for counts in batches]
    drops = [(counts - own).sum() / counts.sum() for counts, own in zip(batches, left, strict=True)]
    total, videos = np.concatenate(batches).sum(), np.concatenate(left)
    used = (videos + 1).sum() / (videos.size * slots)
    return Measured(
        f"first fit {shape.slots}", slots, float(used), float(1 - videos.sum() / total), max(drops)
    )


def packed(rows: RowFit) -> Measured:
    """The plan of the product."""
    own = rows.packing
    slots = own.rows * own.slots / own.group
    return Measured(f"packed {own.slots}", slots, rows.used, rows.dropped, rows.worst)


def table(measured: Sequence[Measured]) -> str:
    """One line a way."""
    lines = [f"{'way':14} {'slots/video':>11} {'used':>7} {'dropped':>9} {'worst':>8} programs"]
    lines += [
        f"{one.way:14} {one.slots:11.1f} {one.used:7.1%} {one.dropped:9.3%} {one.worst:8.2%} "
        f"{one.programs:8}"
        for one in measured
    ]
    return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class Compared:
    """All ways with the same batches.

    Attributes:
      name: of the counts.
      over: share of all trajectories that are over the most that a video may have.
      ways: what each makes of them.
      best: rows of the product at the best number of slots.
      plan_seconds: that the product takes for a batch.
    """

    name: str
    over: float
    ways: tuple[Measured, ...]
    best: RowFit
    plan_seconds: float

    @property
    def holds(self) -> bool:
        """The bounds."""
        return self.best.dropped < DROPPED and self.best.used >= USED


def compare(
    name: str, whole: Int64[np.ndarray, " n"], group: int, options: argparse.Namespace
) -> Compared:
    """Draws batches from the counts, and prints the table."""
    counts = np.minimum(whole, options.most)
    batches = draw_batches(counts, options.batch, 30 if options.quick else options.batches)
    over = float(1 - counts.sum() / whole.sum())
    print(
        f"{name}: {len(whole)} with {whole.min()}..{whole.max()} trajectories, {whole.mean():.1f} "
        f"on average; the {options.most} largest of each count ({over:.1%} of all are over that), "
        f"{counts.mean():.1f}\n{len(batches)} batches of {options.batch}, groups of "
        f"{group} with {options.rows} rows"
    )
    shapes = sizes_to_try(batches, PackingSettings(group, options.rows, group))
    first, tried = [], []
    for shape in tqdm(shapes, unit="shape", leave=False):
        first.append(first_fit(batches, shape))
        tried.append(fit(batches, shape))
    ways = (
        padded(batches, options.most),
        bucketed(batches, options.most),
        *first,
        *(packed(one) for one in tried),
    )
    chosen = best(tried)
    start = time.perf_counter()
    for own in batches[:10]:
        plan(own, chosen.packing)
    seconds = (time.perf_counter() - start) / len(batches[:10])
    done = Compared(name, over, ways, chosen, seconds)
    print(
        f"{table(ways)}\n"
        f"best: groups of {group}, {chosen.packing.slots} slots, {chosen.used:.1%} used, "
        f"{chosen.dropped:.3%} dropped; "
        f"bounds {USED:.0%} and {DROPPED:.1%}: {'hold' if done.holds else 'do not hold'}\n"
        f"a plan takes {1e3 * seconds:.1f} ms\n"
    )
    return done


def smallest_that_holds(
    name: str, whole: Int64[np.ndarray, " n"], options: argparse.Namespace
) -> Compared:
    """Compares with larger and larger groups, up to the first at which the bounds hold."""
    for group in sorted(options.group):
        done = compare(name, whole, group, options)
        if done.holds:
            break
    return done


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = parser_of(__file__, __doc__, quick="30 batches: seconds")
    parser.add_argument("--records", type=Path, default=None, help="folder of records")
    parser.add_argument("--split", default="train", help="of the records (default: train)")
    parser.add_argument("--batch", type=count, default=256, help="videos (default: 256)")
    parser.add_argument(
        "--group",
        type=count,
        nargs="+",
        default=(8, 16),
        help="videos a group; a larger one is tried where the bounds fail (default: 8 16)",
    )
    parser.add_argument("--rows", type=count, default=1, help="rows a group (default: 1)")
    parser.add_argument("--most", type=count, default=1023, help="trajectories (default: 1023)")
    parser.add_argument("--batches", type=count, default=400, help="drawn (default: 400)")
    options = parser.parse_args(arguments)

    counted = {name: np.array(own, np.int64) for name, own in _COUNTED.items()}
    if options.records:
        counted = {str(options.records): open_records(options.records, options.split).counts}
    compared = [smallest_that_holds(name, own, options) for name, own in counted.items()]
    failed = [one.name for one in compared if not one.holds]
    print(f"the bounds do not hold for: {'; '.join(failed)}" if failed else "all bounds hold")
    report: dict[str, Any] = {
        "commit": commit(),
        "batch": options.batch,
        "rows": options.rows,
        "most": options.most,
        "counts": [dataclasses.asdict(one) for one in compared],
        "bounds_hold": not failed,
    }
    write_json(options.json, report)
    return 1 if failed else 0


if __name__ == "__main__":
    run_command(main)
