"""A video's tokens from pixels to states: TrajViT-L with its extraction against ViT3D-L.

  python -m benchmarks.end_to_end                # 16 to 256 frames of one clip, float32, bfloat16
  python -m benchmarks.end_to_end --quick        # tiny models: does everything run? no verdict
  python -m benchmarks.end_to_end --frames=16,32 --input=video.mp4 --json=end_to_end.json

One video at a time, on CPU. Both sides start from decoded frames; decoding is left out, also of the
up to five frames between each two sampled ones, which the embedded extraction reads besides. The
made clip has few trajectories; --input=FILE takes a real one, which has more. TrajViT is charged
for the trajectories (by --tokenizer, the embedded default, in one thread) and for its forward pass,
ViT3D for its forward pass. Each is run in the fastest way that is at hand: ViT3D in
PyTorch with fused attention where torch is installed (make sam2), which never holds the scores;
else ours, which from 128 frames on reads its queries in chunks (the scores of a layer would take
10 GB at 128 frames and 40 GB at 256).

From 128 frames on one layer of ViT3D is timed and stands for all; how well it does is shown by
16 and 32 frames, where the whole model runs beside it. Long clips are run once, the others
several times, and the median counts. The verdict is on float32. bfloat16 is measured where the
CPU has matrix units for it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gc
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from benchmarks import end_to_end_models as models
from benchmarks.arguments import count
from benchmarks.end_to_end_models import Part
from tokenization import pipeline, video
from tokenization.files import write_text
from tokenization.manifest import read_entries
from tokenization.recorder import ExtractSettings
from tokenization.video import VideoError
from tokenization.world import WorldSettings, write_split
from trajvit_jax import config
from trajvit_jax.models.settings import SIZES, EncoderSettings

TOKENIZER = "configs/tokenization/classical.py"
FRAMES = (16, 32, 64, 128, 256)
CHUNKED, CHECKED, OFTEN = 128, 32, 32  # frames: see the docstring of the module
SIDE = 224
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of frames, in one precision.

    Attributes:
      dtype: of the models.
      frames: sampled.
      trajectories: found in them.
      extraction: seconds.
      trajvit: forward pass, in the fastest way.
      vit3d: likewise; of the patches and the layers where those are timed apart.
      by_layer: seconds of ViT3D by one layer, where the whole ran, too.
    """

    dtype: str
    frames: int
    trajectories: int
    extraction: float
    trajvit: Part
    vit3d: tuple[Part, ...]
    by_layer: float | None = None

    @property
    def ours(self) -> float:
        """Seconds of TrajViT, extraction included."""
        return self.extraction + self.trajvit.total

    @property
    def theirs(self) -> float:
        """Seconds of ViT3D."""
        return sum(part.total for part in self.vit3d)

    @property
    def speedup(self) -> float:
        """How many times sooner TrajViT is done."""
        return self.theirs / self.ours


@dataclasses.dataclass(frozen=True)
class Sample:
    """What both models read of a clip."""

    pixels: np.ndarray
    labels: np.ndarray
    extraction: tuple[float, ...]


def made_clip(folder: str, frames: int, width: int) -> Path:
    """A clip of the procedural world, of 16:9."""
    world = WorldSettings(
        width=width, height=width * 9 // 16, frames=frames, fps=24, min_objects=3, max_objects=5,
        moving_extras=0.8, sizes=(0.08, 0.12, 0.17), object_texture=0.25, background_texture=0.5,
    )  # fmt: skip
    return Path(read_entries(write_split(folder, "test", 1, world, progress=False))[0].path)


def samples(
    path: Path, frames: Sequence[int], settings: pipeline.PipelineSettings, side: int, rounds: int
) -> dict[int, Sample]:
    """Frames and trajectories of a clip for each number of frames.

    Raises:
      VideoError: it cannot be read.
    """
    found = {}
    for number in tqdm(frames, desc="extraction", unit="clip", disable=None):
        chosen = dataclasses.replace(settings, frames=number)
        tokenizer = pipeline.build(chosen)
        decoded = video.decode(
            path, frames=number, between=chosen.between, max_side=chosen.max_side
        )
        run = functools.partial(models.extracted, tokenizer, decoded, side // 4)
        often = number <= OFTEN
        seconds, labels = models.timed(run, rounds if often else 1, warm=often)
        found[number] = Sample(models.squashed(decoded.rgb, side), labels, seconds)
    return found


def measure(
    clips: dict[int, Sample], encoder: EncoderSettings, side: int, dtype: str, rounds: int
) -> list[Row]:
    """Rows of one precision; one model at a time is in memory."""

    def often(number: int) -> int:
        return rounds if number <= OFTEN else 1

    ours: dict[int, list[Part]] = {number: [] for number in clips}
    for model in models.trajvits(encoder, side, dtype):
        for number, clip in tqdm(clips.items(), desc=f"TrajViT {model.way}", disable=None):
            ours[number].append(
                model.seconds(clip.pixels, clip.labels, often(number), warm=number <= OFTEN)
            )
        del model
        gc.collect()
    rows, patches = [], models.vit3d(encoder, side, max(clips), dtype)
    for number, clip in tqdm(clips.items(), desc=f"ViT3D {patches.way}", disable=None):
        again: dict[str, Any] = {"rounds": often(number), "warm": number <= OFTEN}
        whole = patches.whole(clip.pixels, **again) if number < CHUNKED else []
        layers = (
            patches.layer(clip.pixels, **again) if number <= CHECKED or number >= CHUNKED else []
        )
        rows.append(
            Row(
                dtype,
                number,
                int(clip.labels.max()),
                float(np.median(clip.extraction)),
                min(ours[number], key=lambda part: part.total),
                tuple(whole or layers),
                sum(part.total for part in layers) if whole and layers else None,
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """One line a row; seconds of a video."""
    lines = [
        f"{'frames':>6} {'trajectories':>12} {'extraction':>10} {'forward':>8} {'TrajViT':>8} "
        f"{'ViT3D':>8} {'times faster':>12}  ways"
    ]
    for row in rows:
        star = "*" if len(row.vit3d) > 1 else " "
        lines.append(
            f"{row.frames:6} {row.trajectories:12} {row.extraction:10.2f} "
            f"{row.trajvit.total:8.2f} {row.ours:8.2f} {row.theirs:7.2f}{star} "
            f"{row.speedup:12.2f}  {row.trajvit.way} | {row.vit3d[-1].way}"
        )
    if any(len(row.vit3d) > 1 for row in rows):
        lines.append("* patches, and one layer times their number")
    for row in rows:
        if row.by_layer is not None:
            lines.append(
                f"one layer for all against the whole ViT3D at {row.frames} frames: "
                f"{row.by_layer / row.theirs:.2f}"
            )
    return "\n".join(lines)


def verdict(rows: Sequence[Row]) -> tuple[bool, str]:
    """Whether TrajViT is the faster one at every number of frames, and how that is said."""
    slower = [row.frames for row in rows if row.speedup <= 1]
    holds = not slower
    said = f"TrajViT, extraction included, is faster from {rows[0].frames} frames on (float32)"
    where = "" if holds else f"; slower at {', '.join(map(str, slower))}"
    return holds, f"{'holds' if holds else 'FAILS'}: {said}{where}"


def crossover(rows: Sequence[Row]) -> str:
    """From which number of frames on TrajViT is the faster one."""
    for number, row in enumerate(rows):
        if all(one.speedup > 1 for one in rows[number:]):
            return f"{row.dtype}: TrajViT, extraction included, is faster from {row.frames} on"
    return f"{rows[0].dtype}: ViT3D is faster at {rows[-1].frames} frames, the most measured"


def has_matrix_units() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 (AMX)."""
    info = Path("/proc/cpuinfo")
    return info.exists() and "amx_bf16" in info.read_text().split()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(sorted({count(part) for part in text.split(",")}))


def main(argv: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 1 where the bound does not hold."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.end_to_end",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="a tiny model, no verdict")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--frames", type=_numbers, default=FRAMES, help="with commas (16 to 256)")
    parser.add_argument("--rounds", type=count, default=3, help="of up to 32 frames (3)")
    parser.add_argument("--input", type=Path, help="a video (default: one is made)")
    parser.add_argument("--tokenizer", default=TOKENIZER, help=f"({TOKENIZER})")
    parser.add_argument("--dtype", choices=DTYPES, help="one of them (default: what this CPU has)")
    args = parser.parse_args(argv)
    settings = config.to_settings(ExtractSettings, config.load(args.tokenizer)).pipeline
    encoder, side, frames, rounds = SIZES["L"], SIDE, args.frames, args.rounds
    if args.quick:
        encoder = dataclasses.replace(SIZES["S"], depth=2)
        side, frames, rounds = 32, (8, CHUNKED), 1
    cv2.setNumThreads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = args.input or made_clip(folder, max(frames), 512 if not args.quick else 128)
            clips = samples(path, frames, settings, side, rounds)
    except VideoError as error:
        parser.error(str(error))
    cv2.setNumThreads(-1)
    report: dict[str, Any] = {"frames": list(frames), "tokenizer": dataclasses.asdict(settings)}
    kept = True
    dtypes = [args.dtype] if args.dtype else ["float32"]
    if not args.dtype and has_matrix_units() and models.has_torch():
        dtypes.append("bfloat16")
    for dtype in dtypes:
        rows = measure(clips, encoder, side, dtype, rounds)
        report[dtype] = [dataclasses.asdict(row) for row in rows]
        print(
            f"\n{'two layers' if args.quick else 'ViT-L'}, {side} pixels, {dtype}: seconds a video"
        )
        print(table(rows))
        if args.quick:
            continue
        if dtype == "float32":
            kept, said = verdict(rows)
            print(said)
        else:
            print(crossover(rows))
        if args.json:
            write_text(args.json, json.dumps(report, indent=1) + "\n")
    if args.quick:
        print("everything runs; a model this small proves nothing: the verdict needs the full run")
        if args.json:
            write_text(args.json, json.dumps(report, indent=1) + "\n")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
