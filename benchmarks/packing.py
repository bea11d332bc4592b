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
videos of one length only. The table ends with the slots at which packed rows use most while they
drop less than 0.1%. The exit code is 1 if that is under 88%.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from tqdm import tqdm

from benchmarks.arguments import count
from tokenization.files import write_text
from tokenization.records import open_records
from trajvit_jax.data.packing import PackingSettings, plan
from trajvit_jax.run.provenance import commit

USED, DROPPED = 0.88, 0.001  # the bounds: at least, and less than
STEP = 16  # slots between the shapes that are tried
BUCKETS = 4

# Trajectories of 80 clips of Panda-70M's validation set, 16 frames each, extracted with
# configs/tokenization/classical.py at commit f5722a2.
PANDA = (
    *(21, 23, 23, 24, 28, 29, 29, 30, 34, 35, 36, 36, 37, 40, 40, 43, 43, 44, 45, 45),
    *(47, 48, 48, 48, 50, 50, 54, 54, 57, 57, 59, 62, 63, 65, 66, 69, 71, 71, 72, 72),
    *(84, 87, 87, 89, 91, 92, 94, 98, 99, 105, 106, 109, 112, 112, 114, 118, 120, 122),
    *(123, 124, 127, 127, 133, 133, 139, 148, 152, 157, 161, 174, 175, 177, 221, 235, 250, 268),
    *(284, 305, 327, 364),
)
# Of the first frame of each alone: an image is a video of one frame. Counted in the same records.
PANDA_IMAGES = (
    *(16, 17, 19, 20, 20, 22, 23, 24, 25, 25, 26, 27, 27, 27, 28, 29, 30, 30, 30, 32),
    *(32, 32, 33, 34, 36, 37, 38, 38, 39, 40, 40, 40, 42, 44, 45, 45, 47, 47, 50, 50),
    *(50, 51, 53, 53, 54, 54, 55, 55, 55, 57, 57, 59, 59, 60, 60, 60, 61, 61, 61, 62),
    *(63, 63, 65, 67, 67, 67, 68, 69, 70, 71, 71, 72, 76, 76, 77, 79, 84, 101, 110, 114),
)


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

    return _measured("first fit", batches, [kept(counts) for counts in batches], shape)


def packed(batches: Sequence[Int64[np.ndarray, " b"]], shape: PackingSettings) -> Measured:
    """The plan of the product."""
    kept = []
    for counts in batches:
        made = plan(counts, shape)
        kept.append(np.zeros_like(counts))
        kept[-1][made.order] = made.kept
    return _measured("packed", batches, kept, shape)


def _measured(
    way: str,
    batches: Sequence[Int64[np.ndarray, " b"]],
    kept: Sequence[Int64[np.ndarray, " b"]],
    shape: PackingSettings,
) -> Measured:
    slots = shape.rows * shape.slots / shape.group
    drops = [(counts - own).sum() / counts.sum() for counts, own in zip(batches, kept, strict=True)]
    total = np.concatenate(batches).sum()
    left = np.concatenate(kept)
    used = (left + 1).sum() / (left.size * slots)
    return Measured(
        f"{way} {shape.slots}", slots, float(used), float(1 - left.sum() / total), max(drops)
    )


def shapes(mean: float, options: argparse.Namespace) -> list[PackingSettings]:
    """Rows whose slots would be 96% down to 82% used if nothing were dropped."""
    full = (mean + 1) * options.group / options.rows
    first, last = (int(full / use) // STEP * STEP for use in (0.96, 0.82))
    most = range(max(first, options.group), last + 1, STEP)
    return [PackingSettings(options.group, options.rows, slots) for slots in most]


def table(measured: Sequence[Measured]) -> str:
    """One line a way."""
    lines = [f"{'way':14} {'slots/video':>11} {'used':>7} {'dropped':>9} {'worst':>8} programs"]
    lines += [
        f"{one.way:14} {one.slots:11.1f} {one.used:7.1%} {one.dropped:9.3%} {one.worst:8.2%} "
        f"{one.programs:8}"
        for one in measured
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--records", type=Path, default=None, help="folder of records")
    parser.add_argument("--split", default="train", help="of the records (default: train)")
    parser.add_argument("--images", action="store_true", help="the first frames of the 80 clips")
    parser.add_argument("--batch", type=count, default=256, help="videos (default: 256)")
    parser.add_argument("--group", type=count, default=8, help="videos a group (default: 8)")
    parser.add_argument("--rows", type=count, default=1, help="rows a group (default: 1)")
    parser.add_argument("--most", type=count, default=1023, help="trajectories (default: 1023)")
    parser.add_argument("--batches", type=count, default=400, help="drawn (default: 400)")
    parser.add_argument("--quick", action="store_true", help="30 batches: seconds")
    parser.add_argument("--json", type=Path, default=None, help="also write the numbers here")
    options = parser.parse_args(arguments)

    whole = np.array(PANDA_IMAGES if options.images else PANDA, np.int64)
    if options.records:
        whole = open_records(options.records, options.split).counts
    counts = np.minimum(whole, options.most)
    batches = draw_batches(counts, options.batch, 30 if options.quick else options.batches)
    over = 1 - counts.sum() / whole.sum()
    print(
        f"{len(whole)} videos with {whole.min()}..{whole.max()} trajectories, {whole.mean():.1f} "
        f"on average; the {options.most} largest of each count ({over:.1%} of all are over that), "
        f"{counts.mean():.1f}\n{len(batches)} batches of {options.batch}, groups of "
        f"{options.group} with {options.rows} rows"
    )

    measured = [padded(batches, options.most), bucketed(batches, options.most)]
    tried = []
    for shape in tqdm(shapes(float(counts.mean()), options), unit="shape", leave=False):
        measured.append(first_fit(batches, shape))
        tried.append(packed(batches, shape))
    measured += tried
    fits = [one for one in tried if one.dropped < DROPPED]
    # Where every shape drops too much, the one that drops least.
    best = max(fits, key=lambda one: one.used) if fits else tried[-1]
    holds = best.dropped < DROPPED and best.used >= USED
    shape = PackingSettings(
        options.group, options.rows, round(best.slots * options.group / options.rows)
    )
    start = time.perf_counter()
    for own in batches[:10]:
        plan(own, shape)
    seconds = (time.perf_counter() - start) / len(batches[:10])
    print(table(measured))
    print(
        f"best below {DROPPED:.1%} dropped: {best.way if fits else 'none'}, {best.used:.1%} used, "
        f"{best.dropped:.3%} dropped; bound {USED:.0%}: {'holds' if holds else 'DOES NOT HOLD'}\n"
        f"a plan takes {1e3 * seconds:.1f} ms"
    )
    if options.json:
        report: dict[str, Any] = {
            "commit": commit(),
            "batch": options.batch,
            "group": options.group,
            "rows": options.rows,
            "most": options.most,
            "over_most": over,
            "ways": [dataclasses.asdict(one) for one in measured],
            "best": best.way,
            "bound_holds": holds,
            "plan_seconds": seconds,
        }
        write_text(options.json, json.dumps(report, indent=2) + "\n")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
