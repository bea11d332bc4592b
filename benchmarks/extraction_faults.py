r"""Kills worker processes of an extraction again and again, and compares what it writes.

Example:
  python -m benchmarks.extraction_faults             # 200 videos, 5 broken, 10 times kill -9
  python -m benchmarks.extraction_faults --quick     # 30 videos, 2 broken, 3 kills
  python -m benchmarks.extraction_faults --engines=ray --json=faults.json

Videos of the procedural world are made here, some are broken in five ways. `tokenization.extract`
does them once in a single process, undisturbed; then once with each engine, in two workers, of
which a random one is killed at random moments. Compared byte by byte: every shard and the
quarantine list. The exit code is 1 if anything differs. Ray runs where it is installed (make ray).
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, write_json
from benchmarks.parts.workers import WORKER, worker_processes
from tokenization import records
from tokenization.files import write_text
from tokenization.shard_files import SHARD_INFO
from tokenization.world import WorldSettings, write_split

WORKERS = 2
SHARD_SIZE = 4
_CONFIG = f"""import ml_collections


def get_config(arg=None):
    return ml_collections.ConfigDict(
        {{"pipeline": {{"frames": 8}}, "record_size": 64, "shard_size": {SHARD_SIZE}}}
    )
"""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """A disturbed run beside the undisturbed one.

    Attributes:
      engine: of the disturbed run.
      videos: in the list, the broken ones included.
      broken: of them.
      kills: worker processes that were killed.
      missing: good videos without a record.
      twice: good videos with more than one record.
      quarantined: entries of the quarantine list.
      shards: files that were compared, and how many of them differ.
      same_quarantine: whether the lists are equal.
      left: temporary files that were left.
      seconds: of the disturbed run, and of the undisturbed one in one process.
    """

    engine: str
    videos: int
    broken: int
    kills: int
    missing: int
    twice: int
    quarantined: int
    shards: tuple[int, int]
    same_quarantine: bool
    left: int
    seconds: tuple[float, float]

    @property
    def good(self) -> bool:
        """Whether nothing was lost, doubled or changed."""
        return (
            (self.missing, self.twice, self.left) == (0, 0, 0)
            and self.quarantined == self.broken
            and self.shards[0] > 0
            and not self.shards[1]
            and self.same_quarantine
        )

    def __str__(self) -> str:
        return (
            f"{self.engine:6} {self.videos:6} {self.broken:6} {self.kills:5} {self.missing:7} "
            f"{self.twice:5} {self.quarantined:11} {self.shards[1]:4} of {self.shards[0]:<3} "
            f"{'same' if self.same_quarantine else 'OTHER':>10} {self.left:4} "
            f"{self.seconds[0]:6.0f} {self.seconds[1]:6.0f}  {'good' if self.good else 'BAD'}"
        )


HEAD = (
    f"{'engine':6} {'videos':>6} {'broken':>6} {'kills':>5} {'missing':>7} {'twice':>5} "
    f"{'quarantined':>11} {'differ':>9} {'quarantine':>10} {'left':>4} {'s':>6} {'s one':>6}"
)


def make_videos(folder: Path, videos: int, broken: int) -> tuple[Path, list[str]]:
    """Writes the videos, breaks some; returns the manifest and the ids of the good ones."""
    settings = WorldSettings(width=64, height=64, frames=16)
    manifest = write_split(folder / "world", "train", videos, settings)
    lines = [json.loads(line) for line in manifest.read_text("utf-8").splitlines()]
    spread = {(2 * i + 1) * videos // (2 * broken) for i in range(broken)}
    for number, index in enumerate(sorted(spread)):
        path = manifest.parent / lines[index]["path"]
        whole = path.read_bytes()
        ways: tuple[Callable[[], bytes], ...] = (
            lambda: b"",
            lambda whole=whole: whole[: len(whole) // 2],
            lambda: b"not a video\n",
            lambda whole=whole: whole[:32] + bytes(len(whole) - 32),
            lambda: random.Random(0).randbytes(5000),
        )
        path.write_bytes(ways[number % len(ways)]())
    return manifest, [line["id"] for index, line in enumerate(lines) if index not in spread]


def command(engine: str, manifest: Path, config: Path, output: Path) -> list[str]:
    """The extraction."""
    workers = () if engine == "inline" else (f"--workers={WORKERS}",)
    return [
        *(sys.executable, "-m", "tokenization.extract", f"--engine={engine}", *workers),
        *(f"--input={manifest}", f"--output={output}", f"--config={config}", "--max_bad=1"),
    ]


def disturbed(line: Sequence[str], engine: str, output: Path, kills: int, shards: int) -> int:
    """Runs the extraction and kills workers between its shards; returns how many were killed.

    Raises:
      RuntimeError: it ended before all kills, or with an error.
    """
    rng = random.Random(f"{engine} {kills} {shards}")
    moments = sorted(rng.randrange(max(1, shards - 2)) for _ in range(kills))
    log = output.with_suffix(".log")
    with log.open("wb") as stream:
        process = subprocess.Popen(line, stdout=stream, stderr=stream)
    try:
        for done in tqdm(moments, desc=f"kill -9, {engine}", unit="kill"):
            while len(list((output / SHARD_INFO).glob("train-*.json"))) < done:
                _check_runs(process, log)
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.3))
            while not _kill_one(worker_processes(process.pid, engine), rng):
                _check_runs(process, log)
                time.sleep(0.05)
        process.wait(900)
    finally:
        process.kill()
    if process.returncode:
        raise RuntimeError(f"exit code {process.returncode}:\n{log.read_text('utf-8')[-3000:]}")
    return len(moments)


def _kill_one(workers: Sequence[int], rng: random.Random) -> bool:
    """Whether a worker was killed: one may end by itself before it is."""
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
            return True
    return False


def _check_runs(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        raise RuntimeError(f"it ended before all kills:\n{log.read_text('utf-8')[-3000:]}")


def contents(output: Path) -> dict[str, bytes]:
    """The bytes of every shard."""
    return {path.name: path.read_bytes() for path in output.glob("*.array_record-*")}


def measure(
    folder: Path, engines: Sequence[str], videos: int, broken: int, kills: int
) -> list[Verdict]:
    """Extracts undisturbed, then with each engine while workers are killed.

    Raises:
      RuntimeError: a run that ended with an error, or too early.
    """
    manifest, good = make_videos(folder, videos, broken)
    config = folder / "config.py"
    write_text(config, _CONFIG)
    calm = folder / "calm"
    begin = time.monotonic()
    done = subprocess.run(
        command("inline", manifest, config, calm), check=False, capture_output=True, text=True
    )
    calm_seconds = time.monotonic() - begin
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    expected, verdicts = contents(calm), []
    for engine in engines:
        output = folder / engine
        begin = time.monotonic()
        line = command(engine, manifest, config, output)
        killed = disturbed(line, engine, output, kills, len(expected))
        seconds = time.monotonic() - begin
        times = Counter(record.id for record in records.open_records(output))
        found = contents(output)
        names = found.keys() | expected.keys()
        verdicts.append(
            Verdict(
                engine,
                videos,
                broken,
                killed,
                missing=sum(name not in times for name in good),
                twice=sum(number > 1 for number in times.values()),
                quarantined=len((output / "quarantine.jsonl").read_text("utf-8").splitlines()),
                shards=(len(names), sum(found.get(n) != expected.get(n) for n in names)),
                same_quarantine=(output / "quarantine.jsonl").read_bytes()
                == (calm / "quarantine.jsonl").read_bytes(),
                left=len(list(output.rglob(".*.partial"))),
                seconds=(seconds, calm_seconds),
            )
        )
    return verdicts


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if anything was lost, doubled or changed."""
    parser = parser_of(__file__, __doc__, quick="30 videos, 2 broken, 3 kills")
    parser.add_argument("--videos", type=count, default=200, help="in all (default: 200)")
    parser.add_argument("--broken", type=count, default=5, help="of them (default: 5)")
    parser.add_argument("--kills", type=count, default=10, help="of workers (default: 10)")
    parser.add_argument(
        "--engines", help="local, ray or local,ray (default: both, without ray if not installed)"
    )
    parser.add_argument("--folder", type=Path, help="keeps everything here (default: nowhere)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.videos, options.broken, options.kills = 30, 2, 3
    installed = importlib.util.find_spec("ray") is not None
    engines = (options.engines or ("local,ray" if installed else "local")).split(",")
    if set(engines) - WORKER.keys():
        parser.error(f"--engines={options.engines}: choose of {', '.join(WORKER)}")
    if "ray" in engines and not installed:
        parser.error("Ray is not installed; make ray installs it")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        verdicts = measure(folder, engines, options.videos, options.broken, options.kills)
    print(HEAD)
    for verdict in verdicts:
        print(verdict)
    if "ray" not in engines and not options.engines:
        print("Ray is not installed (make ray); it was left out")
    write_json(options.json, [dataclasses.asdict(one) for one in verdicts])
    return 0 if all(verdict.good for verdict in verdicts) else 1


if __name__ == "__main__":
    run_command(main)
