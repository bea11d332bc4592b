"""Peak memory of a process that extracts, of long videos and of large ones, beside its bound.

  python -m benchmarks.extraction_memory                # 16 and 256 frames, as by default
  python -m benchmarks.extraction_memory --quick        # 16 frames, short videos, no verdict
  python -m benchmarks.extraction_memory --tokenizer=mine.py --json=memory.json

Ten seconds of the procedural world, played to and fro, are written as videos of ten seconds and of
ten minutes, and enlarged to 3840x2160. Each is extracted by `python -m tokenization.extract` with
one worker, whose greatest resident memory (VmHWM of Linux) is read until it ends. The exit code is
1 where a video needs more than is stated: 512 MB for 16 frames (by the command), 2 GB for 256.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import UInt8
from tqdm import tqdm

from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.made_clips import made_clip
from benchmarks.parts.workers import worker_processes
from tokenization import video
from tokenization.records import open_records

TOKENIZER = "configs/tokenization/classical.py"
BOUNDS = {16: 512, 256: 2000}  # MB, by sampled frames
FPS = 24
_POLL = 0.05  # seconds
# As encoders keep frames by default: a decoder holds as many.
_ENCODED = {"preset": "ultrafast", "crf": "26", "x264-params": "ref=4:bframes=3"}


@dataclasses.dataclass(frozen=True)
class Made:
    """A video to be made.

    Attributes:
      width: pixels.
      height: pixels.
      seconds: of it.
    """

    width: int
    height: int
    seconds: int

    def __str__(self) -> str:
        return f"{self.seconds} s of {self.width}x{self.height}"


@dataclasses.dataclass(frozen=True)
class Peak:
    """One extraction.

    Attributes:
      video: what it was of.
      frames: sampled.
      megabytes: of its worker, at most.
      trajectories: found.
    """

    video: str
    frames: int
    megabytes: float
    trajectories: int

    @property
    def bound(self) -> int:
        """MB that are stated for so many frames."""
        return next(bound for frames, bound in BOUNDS.items() if self.frames <= frames)

    def __str__(self) -> str:
        said = "holds" if self.megabytes < self.bound else "FAILS"
        return (
            f"{self.video:22} {self.frames:6} {self.trajectories:12} {self.megabytes:8.0f} "
            f"{self.bound:8}  {said}"
        )


HEAD = f"{'video':22} {'frames':>6} {'trajectories':>12} {'peak MB':>8} {'bound MB':>8}"


def write_video(path: Path, scene: UInt8[np.ndarray, "t h w 3"], made: Made) -> None:
    """Encodes a scene, played to and fro for as long as the video is to be, in its size."""
    there_and_back = itertools.cycle([*range(len(scene)), *range(len(scene) - 2, 0, -1)])
    size = made.width, made.height
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=_ENCODED)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for number in itertools.islice(there_and_back, made.seconds * FPS):
            rgb = cv2.resize(scene[number], size, interpolation=cv2.INTER_LINEAR)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())


def peak_megabytes(command: Sequence[str]) -> float:
    """The most that a worker of an extraction had in memory.

    Raises:
      RuntimeError: it failed, or no worker was seen.
    """
    found = 0
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while process.poll() is None:
                for worker in worker_processes(process.pid, "local"):
                    with contextlib.suppress(OSError):  # it has just ended
                        status = Path(f"/proc/{worker}/status").read_text()
                        peak = re.search(r"VmHWM:\s+(\d+) kB", status)
                        found = max(found, int(peak[1]) if peak else 0)
                time.sleep(_POLL)
        finally:
            process.kill()
        if process.returncode or not found:
            log.seek(0)
            raise RuntimeError(f"exit code {process.returncode}:\n{log.read()[-3000:]}")
    return found * 1024 / 1e6


def extracted(path: Path, name: str, frames: int, tokenizer: str, folder: Path) -> Peak:
    """Extracts one video in one worker.

    Raises:
      RuntimeError: see `peak_megabytes`.
    """
    output = folder / f"{path.stem}-{frames}"
    config = f"{tokenizer}{',' if ':' in tokenizer else ':'}frames={frames}"
    megabytes = peak_megabytes(
        [
            *(sys.executable, "-m", "tokenization.extract", "--engine=local", "--workers=1"),
            *(f"--input={path}", f"--output={output}", f"--config={config}"),
        ]
    )
    (record,) = open_records(output)
    return Peak(name, frames, megabytes, len(record.trajectories))


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; 1 where a bound does not hold."""
    parser = parser_of(__file__, __doc__, quick="short videos, 16 frames; no verdict")
    parser.add_argument("--tokenizer", default=TOKENIZER, help=f"({TOKENIZER})")
    args = parser.parse_args(arguments)
    if not Path("/proc/self/status").exists():
        parser.error("memory is read where Linux tells it, in /proc")
    short, long, large = Made(640, 360, 10), Made(640, 360, 600), Made(3840, 2160, 10)
    plan = [(short, 16), (long, 16), (large, 16), (short, 256), (long, 256)]
    if args.quick:
        plan = [(Made(640, 360, 2), 16), (Made(3840, 2160, 1), 16)]
    peaks = []
    print(HEAD, flush=True)
    with tempfile.TemporaryDirectory() as name, tqdm(plan, unit="video", disable=None) as bar:
        folder = Path(name)
        seconds = 2 if args.quick else 10
        # `made_clip` makes six frames for each that it is told of.
        scene = video.decode(made_clip(folder, seconds * FPS // 6, 640), frames=seconds * FPS).rgb
        for made, frames in bar:
            path = folder / f"{made.width}x{made.height}-{made.seconds}.mp4"
            if not path.exists():
                bar.set_postfix_str(f"writes {made}")
                write_video(path, scene, made)
            bar.set_postfix_str(f"{frames} frames of {made}")
            peaks.append(extracted(path, str(made), frames, args.tokenizer, folder))
            with tqdm.external_write_mode():
                print(peaks[-1], flush=True)
            found = [{**dataclasses.asdict(one), "bound": one.bound} for one in peaks]
            write_json(args.json, found)
    if args.quick:
        print("--quick: no verdict on videos this short")
        return 0
    return 0 if all(one.megabytes < one.bound for one in peaks) else 1


if __name__ == "__main__":
    run_command(main)
