"""A video from its file to states: TrajViT-L with its extraction against ViT3D-L.

  python -m benchmarks.end_to_end                # 16 to 256 frames, float32, bfloat16
  python -m benchmarks.end_to_end --quick        # tiny models: does everything run? no verdict
  python -m benchmarks.end_to_end --frames=16,32 --video=video.mp4 --json=end_to_end.json

One video at a time, on CPU. Both sides are charged for reading it: decoding, and squashing the
sampled frames to a model's size. TrajViT's reading includes the up to five frames between each
two sampled ones that the embedded extraction looks at; a made clip has that many, for each number
of frames (`made_clip`). A given one has what it has, and is read whole. TrajViT is then charged
for the trajectories (by --tokenizer, the embedded default, in one thread) and for its forward
pass, ViT3D for its forward pass. The made clips have few trajectories; a real video has more.

Each model is run in the fastest way that is at hand: ViT3D in PyTorch with fused attention where
torch is installed (make sam2), which never holds the scores; else ours, which from 128 frames on
reads its queries in chunks (the scores of a layer would take 10 GB at 128 frames and 40 GB at 256).

From 128 frames on one layer of ViT3D is timed and stands for all; how well it does is shown by
16 and 32 frames, where the whole model runs beside it. Forward passes and trajectories of long
clips are run once, the others several times, and the median counts. Rows are printed, and written
to --json, as they are done. The verdict is on float32: the exit code is 1 if TrajViT is the slower
one at any number of frames. bfloat16 is measured where the CPU has matrix units for it.
"""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import jax
import numpy as np
from tqdm import tqdm

from benchmarks.parts import end_to_end_models as models
from benchmarks.parts.arguments import count, counts
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.end_to_end_models import Part
from benchmarks.parts.made_clips import made_clip
from tokenization import pipeline, video
from tokenization.recorder import ExtractSettings
from tokenization.video import Frames
from trajvit_jax import config
from trajvit_jax.models.settings import SIZES, EncoderSettings

TOKENIZER = "configs/tokenization/classical.py"
FRAMES = (16, 32, 64, 128, 256)
CHUNKED, CHECKED, OFTEN = 128, 32, 32  # frames: see the docstring of the module
SIDE = 224
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Row:
    """One number of frames, in one precision; times are in seconds.

    Attributes:
      dtype: of the models.
      frames: sampled.
      between: frames between these that TrajViT's extraction reads, too.
      repeated: trailing samples that repeat the last frame of a shorter video.
      trajectories: found in them.
      our_reading: of the file, with the frames between.
      their_reading: without.
      extraction: of the trajectories, from decoded frames.
      trajvit: forward pass, in the fastest way.
      vit3d: likewise; of the patches and the layers where those are timed apart.
      by_layer: of ViT3D's forward pass by one layer, where the whole ran, too.
    """

    dtype: str
    frames: int
    between: int
    repeated: int
    trajectories: int
    our_reading: float
    their_reading: float
    extraction: float
    trajvit: Part
    vit3d: tuple[Part, ...]
    by_layer: float | None = None

    @property
    def ours(self) -> float:
        """Of TrajViT, from the file to its states."""
        return self.our_reading + self.extraction + self.trajvit.total

    @property
    def their_forward(self) -> float:
        """Of ViT3D's forward pass."""
        return sum(part.total for part in self.vit3d)

    @property
    def theirs(self) -> float:
        """Of ViT3D, from the file to its states."""
        return self.their_reading + self.their_forward

    @property
    def speedup(self) -> float:
        """How many times sooner TrajViT is done."""
        return self.theirs / self.ours


@dataclasses.dataclass(frozen=True)
class Sample:
    """What both models read of a clip, and the seconds that it took to have it.

    Attributes:
      pixels: normalized, [1, t, side, side, 3].
      labels: trajectories of a grid, [t, y, x].
      between: see `Row`, as are those below.
    """

    pixels: np.ndarray
    labels: np.ndarray
    between: int
    repeated: int
    our_reading: float
    their_reading: float
    extraction: float


def sample(
    path: Path, frames: int, settings: pipeline.PipelineSettings, side: int, rounds: int
) -> Sample:
    """Frames and trajectories of a clip.

    Raises:
      VideoError: it cannot be read.
    """
    chosen = dataclasses.replace(settings, frames=frames)
    tokenizer = pipeline.build(chosen)

    def read(between: int) -> tuple[Frames, np.ndarray]:
        decoded = video.decode(path, frames=frames, between=between, max_side=chosen.max_side)
        return decoded, models.squashed(decoded.rgb, side)

    theirs, _ = models.timed(functools.partial(read, 0), rounds, warm=True)
    ours, (decoded, pixels) = models.timed(
        functools.partial(read, chosen.between), rounds, warm=True
    )
    often = frames <= OFTEN
    run = functools.partial(models.extracted, tokenizer, decoded, side // 4)
    seconds, labels = models.timed(run, rounds if often else 1, warm=often)
    return Sample(
        pixels,
        labels,
        between=sum(map(len, decoded.between)),
        repeated=decoded.repeated,
        our_reading=float(np.median(ours)),
        their_reading=float(np.median(theirs)),
        extraction=float(np.median(seconds)),
    )


def measure(
    clip_of: Callable[[int], Sample],
    frames: Sequence[int],
    encoder: EncoderSettings,
    side: int,
    dtype: str,
    rounds: int,
) -> Iterator[Row]:
    """Rows of one precision, each as it is done.

    Args:
      clip_of: what there is to read of a clip, of so many frames.
      frames: one number a row.
      encoder: of both models.
      side: of frames, in pixels.
      dtype: what the models compute in.
      rounds: of up to `OFTEN` frames.
    """
    trajvits, vit3d = (
        models.trajvits(encoder, side, dtype),
        models.vit3d(encoder, side, max(frames), dtype),
    )
    with tqdm(frames, desc=dtype, unit="row", disable=None) as bar:
        for number in bar:
            often = number <= OFTEN
            again: dict[str, Any] = {"rounds": rounds if often else 1, "warm": often}
            bar.set_postfix_str(f"trajectories in {number} frames")
            clip = clip_of(number)
            bar.set_postfix_str(f"TrajViT, {number} frames")
            ours = [model.seconds(clip.pixels, clip.labels, **again) for model in trajvits]
            bar.set_postfix_str(f"ViT3D, {number} frames")
            whole = vit3d.whole(clip.pixels, **again) if number < CHUNKED else []
            apart = number <= CHECKED or number >= CHUNKED
            layers = vit3d.layer(clip.pixels, **again) if apart else []
            yield Row(
                dtype,
                number,
                clip.between,
                clip.repeated,
                int(clip.labels.max()),
                clip.our_reading,
                clip.their_reading,
                clip.extraction,
                min(ours, key=lambda part: part.total),
                tuple(whole or layers),
                sum(part.total for part in layers) if whole and layers else None,
            )


HEAD = (
    f"{'frames':>6} {'between':>7} {'trajectories':>12} | {'reading':>7} {'extraction':>10} "
    f"{'forward':>8} {'TrajViT':>8} | {'reading':>7} {'forward':>8} {'ViT3D':>9} | "
    f"{'times faster':>12}  ways"
)


def line(row: Row) -> str:
    """Of the table, below `HEAD`: seconds of a video."""
    star = "*" if len(row.vit3d) > 1 else " "
    return (
        f"{row.frames:6} {row.between:7} {row.trajectories:12} | {row.our_reading:7.2f} "
        f"{row.extraction:10.2f} {row.trajvit.total:8.2f} {row.ours:8.2f} | "
        f"{row.their_reading:7.2f} {row.their_forward:8.2f} {row.theirs:8.2f}{star} | "
        f"{row.speedup:12.2f}  {row.trajvit.way} | {row.vit3d[-1].way}"
    )


def notes(rows: Sequence[Row]) -> list[str]:
    """What is to be said below the table."""
    said = []
    if any(len(row.vit3d) > 1 for row in rows):
        said.append("* forward: patches, and one layer times their number")
    said += [
        f"{row.frames} frames: the video is shorter, {row.repeated} of them repeat its last one"
        for row in rows
        if row.repeated
    ]
    said += [
        f"one layer for all against the whole forward pass of ViT3D at {row.frames} frames: "
        f"{row.by_layer / row.their_forward:.2f}"
        for row in rows
        if row.by_layer is not None
    ]
    return said


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


def no_bfloat16() -> str | None:
    """Why bfloat16 is not measured here; None where it is."""
    info = Path("/proc/cpuinfo")
    if not info.exists() or "amx_bf16" not in info.read_text().split():
        return "this CPU has no matrix units for it (amx_bf16)"
    return None if models.has_torch() else "PyTorch, its fastest way, is not installed (make sam2)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables; returns 1 where the bound does not hold."""
    parser = parser_of(__file__, __doc__, quick="a tiny model, no verdict")
    parser.add_argument("--frames", type=counts, help="with commas (16 to 256)")
    parser.add_argument("--rounds", type=count, default=3, help="of up to 32 frames (3)")
    parser.add_argument("--video", type=Path, help="a video (default: clips are made)")
    parser.add_argument("--tokenizer", default=TOKENIZER, help=f"({TOKENIZER})")
    parser.add_argument("--dtype", choices=DTYPES, help="one of them (default: what this CPU has)")
    args = parser.parse_args(arguments)
    settings = config.to_settings(ExtractSettings, config.load(args.tokenizer)).pipeline
    encoder, side, width, rounds = SIZES["L"], SIDE, 512, args.rounds
    frames = sorted(set(args.frames or FRAMES))
    if args.quick:
        encoder = dataclasses.replace(SIZES["S"], depth=2)
        side, width, rounds, frames = 32, 128, 1, frames if args.frames else [8, CHUNKED]
    missing = no_bfloat16()
    if args.dtype == "bfloat16" and missing:
        parser.error(f"--dtype=bfloat16: {missing}")
    dtypes = [args.dtype] if args.dtype else ["float32", *([] if missing else ["bfloat16"])]
    cv2.setNumThreads(1)
    jax.config.update("jax_platforms", "cpu")  # ours would run on a GPU, where there is one
    report: dict[str, Any] = {
        "frames": frames,
        "tokenizer": dataclasses.asdict(settings),
        "no_bfloat16": missing,
    }
    kept = True
    with tempfile.TemporaryDirectory() as folder:

        @functools.cache  # trajectories are found once for both precisions
        def clip_of(number: int) -> Sample:
            path = args.video or made_clip(folder, number, width)
            return sample(path, number, settings, side, rounds)

        for dtype in dtypes:
            size = "two layers" if args.quick else "ViT-L"
            print(f"\n{size}, {side} pixels, {dtype}: seconds a video\n{HEAD}", flush=True)
            rows: list[Row] = []
            for row in measure(clip_of, frames, encoder, side, dtype, rounds):
                rows.append(row)
                with tqdm.external_write_mode():
                    print(line(row), flush=True)
                report[dtype] = [
                    {**dataclasses.asdict(one), "speedup": one.speedup} for one in rows
                ]
                write_json(args.json, report)
            for note in notes(rows):
                print(note)
            if args.quick:
                continue
            if dtype == "float32":
                kept, said = verdict(rows)
                print(said)
            else:
                print(crossover(rows))
    if missing and not args.dtype:
        print(f"bfloat16 is not measured: {missing}")
    if args.quick:
        print("everything runs; a model this small proves nothing: the verdict needs the full run")
    return 0 if kept else 1


if __name__ == "__main__":
    run_command(main)
