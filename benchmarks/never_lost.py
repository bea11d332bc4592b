r"""Kills a training run again and again, and compares how it ends with an unbroken one.

Example:
  python -m benchmarks.never_lost             # 20 times kill -9, 10 times asked to stop
  python -m benchmarks.never_lost --quick     # 4 and 2
  python -m benchmarks.never_lost --json=never_lost.json

A tiny model trains on records that are made on the spot, in a process of its own, and is started
again after every signal until it ends; a loader's worker process, augmentation, packed rows,
micro-batches and an average of the parameters are on. Signals come at random steps, while a
checkpoint is being written (its temporary folder is there), and before the first step (restore,
compilation). Every second request to stop is a scheduler's: SIGUSR1, and SIGTERM within a
fifth of a second after a checkpoint is begun. The tiny model's is written about as quickly, so that
a reminder may also come after it.
Compared bit by bit: all arrays of the last checkpoint (parameters, statistics, optimizer), the
loss of every step, and which records every step read, in order. Beyond that, a run that was asked
to stop must have saved every step it made, and one of the kills at least must have left a
half-written checkpoint: otherwise nothing was shown of saves.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.parts.arguments import count, count_or_none
from benchmarks.parts.command import parser_of, run_command, write_json
from tokenization.files import write_text
from tokenization.records import Record
from tokenization.shards import write_records
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.run.checkpoint_files import load_arrays
from trajvit_jax.run.provenance import commit
from trajvit_jax.run.sample_log import read_samples, samples_path

_FRAMES, _SIZE, _SLOTS, _VIDEOS = 4, 32, 6, 48
_WIDTHS = {"width": 32, "depth": 2, "heads": 2, "mlp": 64}
_SETTINGS: dict[str, Any] = {
    "seed": 0,
    "log_every": 1,
    "log_samples": True,
    "keep": 2,
    "model": {
        "name": "trajvit",
        "image_size": _SIZE,
        "frames": _FRAMES,
        "projection": 16,
        "encoder": _WIDTHS,
        "trajvit": {
            "max_trajectories": _SLOTS,
            "resnet": {"stem": 8, "widths": (8, 16), "depths": (1, 1)},
        },
        "text": {"vocabulary": 64, "length": 12, "positions": 12, **_WIDTHS},
    },
    "optimizer": {"learning_rate": 1e-3, "warmup_fraction": 0.1},
    "step": {"augment": {}, "micro_batches": 2, "average_decay": 0.9},
}
_CONFIG = """import ml_collections


def get_config(arg=None):
    return ml_collections.ConfigDict({settings!r}).lock()
"""
_EXPECTED = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 75, signal.SIGUSR1: 75}
_REMINDED = (signal.SIGUSR1, signal.SIGTERM)  # a warning, and what follows if it takes too long
_EVERY = 10  # steps between checkpoints
_FEWEST = 2 * _EVERY + 2  # steps in which a stop has a moment
_PATIENCE = 1.0  # seconds until a reminder, where no checkpoint is begun


@dataclasses.dataclass(frozen=True)
class Stop:
    """A signal, and perhaps its reminder: when it was planned for, and what it met.

    Attributes:
      signals: that were sent.
      kind: 'step', 'save' or 'start'.
      step: not before this step was made.
      reached: steps made when the signal was sent.
      lost: steps made that no checkpoint has; they are made again.
      saving: a checkpoint was half written when the process had ended.
      code: exit code.
      seconds: from the signal to the end of the process.
    """

    signals: tuple[int, ...]
    kind: str
    step: int
    reached: int
    lost: int
    saving: bool
    code: int
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether the process ended as documented: after a request to stop with all saved."""
        asked = self.signals[0] != signal.SIGKILL
        ended = self.code == _EXPECTED[signal.Signals(self.signals[0])]
        return ended and not (asked and (self.lost or self.saving))


@dataclasses.dataclass(frozen=True)
class Chain:
    """A run that was stopped again and again, against an unbroken one.

    Attributes:
      number: of its signal; half of the stops of SIGTERM begin with SIGUSR1.
      stops: what was sent.
      starts: of the process.
      arrays: that were compared, and how many of them differ.
      samples: steps whose records were compared, and how many differ.
      losses: steps whose loss was compared, and how many differ.
      seconds: in all.
    """

    number: int
    stops: tuple[Stop, ...]
    starts: int
    arrays: tuple[int, int]
    samples: tuple[int, int]
    losses: tuple[int, int]
    seconds: float

    @property
    def equal(self) -> bool:
        """Whether it ended as the unbroken one, and every signal as documented."""
        return all(stop.kept for stop in self.stops) and all(
            n > 0 and not bad for n, bad in (self.arrays, self.samples, self.losses)
        )

    @property
    def met_a_save(self) -> bool:
        """Whether one of its signals left a half-written checkpoint, as only kill -9 may."""
        return any(stop.saving for stop in self.stops)

    @property
    def holds(self) -> bool:
        """Whether it is equal, and a proof: kills that met no save say nothing of saves."""
        return self.equal and (self.number != signal.SIGKILL or self.met_a_save)


def toy_record(i: int) -> Record:
    """A square that moves through noise."""
    rng = np.random.default_rng(i)
    pixels = rng.integers(0, 120, (_FRAMES, _SIZE, _SIZE, 3), dtype=np.uint8)
    labels = np.ones((_FRAMES, _SIZE, _SIZE), np.uint16)
    colour = i % 3
    for t in range(_FRAMES):
        y, x = 2 + 2 * t, (i * 5) % (_SIZE - 12)
        pixels[t, y : y + 12, x : x + 12, colour] += 120
        labels[t, y : y + 12, x : x + 12] = 2 + (i + t) % 3
    trajectories = Trajectories(
        labels,
        np.arange(_FRAMES, dtype=np.float32),
        np.arange(_FRAMES) == 0,
        VideoInfo(f"clip{i:02d}", _SIZE, _SIZE, 1.0, float(_FRAMES)),
    )
    captions = tuple(
        f"a {('red', 'green', 'blue')[colour]} square {where} number {i}"
        for where in ("at", "near")
    )
    return Record(trajectories, pixels, captions)


class Trainer:
    """Starts `python -m trajvit_jax.main` in a workdir, and watches it through its files."""

    def __init__(self, folder: Path, config: Path, name: str):
        self.workdir = folder / name
        self._command = [
            *(sys.executable, "-m", "trajvit_jax.main"),
            *(f"--config={config}", f"--workdir={self.workdir}"),
        ]
        self._log = folder / f"{name}.log"
        self._before: set[tuple[str, int, int]] = set()
        self._environment = os.environ | {
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",  # compiling takes longer than training here
        }

    def start(self) -> subprocess.Popen[bytes]:
        """Starts or resumes the run; what the run before left behind is not taken for its own."""
        self._before = {_identity(path) for path in (*self._samples(), *self._half_written())}
        return self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(self._command, stdout=log, stderr=log, env=self._environment)

    def step(self) -> int:
        """Steps made, by the log of samples; 0 until the run has a log of its own.

        A resumed run puts a new file in the place of the old one, less the steps that were lost.
        """
        path = next((path for path in self._samples() if self._is_new(path)), None)
        if path is None:
            return 0
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 200))
            lines = file.read().split(b"\n")
        return int(json.loads(lines[-2])["step"]) if len(lines) > 1 and lines[-2] else 0

    def saved(self) -> int:
        """Step of the newest complete checkpoint."""
        names = [path.name for path in (self.workdir / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdecimal()), default=0)

    def saving(self) -> bool:
        """Whether this run, since it was started, has a checkpoint half written."""
        return any(self._is_new(path) for path in self._half_written())

    def _samples(self) -> list[Path]:
        path = samples_path(self.workdir)
        return [path] if path.exists() else []

    def _half_written(self) -> list[Path]:
        return list((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def _is_new(self, path: Path) -> bool:
        try:
            return _identity(path) not in self._before
        except FileNotFoundError:  # it just got its name, or was cleaned up
            return False

    def end(self, process: subprocess.Popen[bytes], *, within: float = 900) -> None:
        """Waits for the end.

        Raises:
          RuntimeError: it ended otherwise than well; with the end of its output.
        """
        code = process.wait(within)
        if code:
            raise RuntimeError(f"exit code {code} of {self._command}:\n{self.output()}")

    def said(self) -> int:
        """Bytes that it printed."""
        return self._log.stat().st_size

    def output(self) -> str:
        """The last lines that it printed."""
        return "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-30:])


def _identity(path: Path) -> tuple[str, int, int]:
    """Tells a file from the one that has its name later."""
    facts = path.stat()
    return path.name, facts.st_ino, facts.st_mtime_ns


def plan(stops: int, steps: int, rng: random.Random) -> list[tuple[str, int]]:
    """Kind and step of each signal: every second while saving, two before the first step.

    At least two checkpoints follow, so that whoever misses one does not meet the end of the run.
    """
    starts = min(2, stops // 4)
    kinds = ["start"] * starts + ["save"] * (stops // 2)
    kinds += ["step"] * (stops - len(kinds))
    rng.shuffle(kinds)
    return list(
        zip(kinds, sorted(rng.randrange(1, steps - 2 * _EVERY) for _ in kinds), strict=True)
    )


def stop_once(
    trainer: Trainer,
    process: subprocess.Popen[bytes],
    signals: tuple[int, ...],
    when: tuple[str, int],
    rng: random.Random,
) -> Stop | None:
    """Waits for the moment, sends the signals, waits for the end; None if the run ended before."""
    kind, step = when
    if kind == "start":  # once it has said something: Python's own start is not its business
        said = trainer.said()
        while process.poll() is None and trainer.said() == said:
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 5.0))
    else:
        while process.poll() is None and trainer.step() < step:
            time.sleep(0.002)
        if kind == "save":
            while process.poll() is None and not trainer.saving():
                time.sleep(0.0002)
        time.sleep(rng.uniform(0, 0.003 if kind == "save" else 0.1))
    if process.poll() is not None:
        return None
    reached, since = trainer.step(), time.monotonic()
    process.send_signal(signals[0])
    for number in signals[1:]:
        while process.poll() is None and time.monotonic() < since + _PATIENCE:
            if trainer.saving():
                time.sleep(rng.uniform(0, 0.2))  # it goes on behind the loop that began it
                break
            time.sleep(0.0002)
        process.send_signal(number)  # to a process that has ended, it sends none
    code = process.wait(300)
    seconds = time.monotonic() - since
    lost = max(0, trainer.step() - trainer.saved())
    return Stop(signals, kind, step, reached, lost, trainer.saving(), code, seconds)


def run_chain(
    trainer: Trainer, number: int, stops: Sequence[tuple[str, int]], rng: random.Random
) -> list[Stop]:
    """Stops a run at all these moments and lets it end.

    Raises:
      RuntimeError: the run ended before all signals were sent, or with an error.
    """
    met: list[Stop] = []
    name = signal.Signals(number).name
    for i, when in enumerate(tqdm(stops, desc=name, unit="stop")):
        signals = _REMINDED if number == signal.SIGTERM and i % 2 == 0 else (number,)
        process = trainer.start()
        stop = stop_once(trainer, process, signals, when, rng)
        if stop is None:
            raise RuntimeError(f"ended before {name} at {when}:\n{trainer.output()}")
        if stop.code not in _EXPECTED.values():
            raise RuntimeError(f"exit code {stop.code} after {name}:\n{trainer.output()}")
        met.append(stop)
    trainer.end(trainer.start())
    return met


def losses(workdir: Path) -> dict[int, float]:
    """The loss of each step."""
    lines = (workdir / "metrics.jsonl").read_text("utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def differing(one: dict[Any, Any], other: dict[Any, Any]) -> tuple[int, int]:
    """How many entries two mappings have together, and how many of them are not equal."""
    keys = one.keys() | other.keys()
    return len(keys), sum(one.get(key) != other.get(key) for key in keys)


def bits(workdir: Path, step: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bytes of all arrays of a checkpoint."""
    arrays = load_arrays(workdir, step)
    return {name: (str(x.dtype), x.shape, x.tobytes()) for name, x in arrays.items()}


def report(chains: Sequence[Chain], steps: int) -> str:
    """One line for each kind of stop, one for each comparison."""
    head = f"{'signal':9} {'moment':7} {'stops':>5} {'half saved':>10} {'steps lost':>10}"
    lines = [f"{head} {'exit codes':>10} {'s to end':>9}"]
    stops = [stop for chain in chains for stop in chain.stops]
    for signals in dict.fromkeys(stop.signals for stop in stops):
        name = "+".join(signal.Signals(number).name.removeprefix("SIG") for number in signals)
        for kind in ("start", "step", "save"):
            of_kind = [stop for stop in stops if (stop.signals, stop.kind) == (signals, kind)]
            if of_kind:
                codes = ",".join(str(code) for code in sorted({stop.code for stop in of_kind}))
                longest = max(stop.seconds for stop in of_kind)
                lost = sum(stop.lost for stop in of_kind)
                half = sum(stop.saving for stop in of_kind)
                lines.append(
                    f"{name:9} {kind:7} {len(of_kind):5} {half:10} {lost:10} {codes:>10} "
                    f"{longest:9.2f}"
                )
    for chain in chains:
        name = signal.Signals(chain.number).name
        lines.append(
            f"{name}: {chain.starts} starts to {steps} steps in {chain.seconds:.0f} s; differing "
            f"from the unbroken run: {chain.arrays[1]} of {chain.arrays[0]} arrays, "
            f"{chain.samples[1]} of {chain.samples[0]} steps' records, "
            f"{chain.losses[1]} of {chain.losses[0]} losses: "
            + ("holds" if chain.holds else "DOES NOT HOLD")
        )
        if chain.number == signal.SIGKILL and not chain.met_a_save:
            lines.append(f"{name}: no kill left a half-written checkpoint, so none met a save")
        if not all(stop.kept for stop in chain.stops):
            lines.append(f"{name}: stops that did not end as documented, with all saved")
    return "\n".join(lines)


def measure(folder: Path, *, steps: int, kills: int, terms: int, seed: int) -> list[Chain]:
    """Trains unbroken, then with kill -9, then with SIGTERM, half of them after SIGUSR1.

    Raises:
      RuntimeError: a run that ended with an error.
    """
    write_records(folder / "records", [toy_record(i) for i in range(_VIDEOS)])
    data = {
        "train": str(folder / "records"),
        "eval_split": "train",
        "batch": 8,
        "eval_batch": 16,
        "packing": {"group": 2, "rows": 1, "slots": 9},  # too few for some: the plan drops
        "threads": 2,
        "workers": 1,
    }
    settings = _SETTINGS | {"steps": steps, "checkpoint_every": _EVERY, "data": data}
    config = folder / "tiny.py"
    write_text(config, _CONFIG.format(settings=settings))

    unbroken = Trainer(folder, config, "unbroken")
    unbroken.end(unbroken.start())
    arrays, samples = bits(unbroken.workdir, steps), read_samples(samples_path(unbroken.workdir))
    expected = losses(unbroken.workdir)

    chains = []
    for number, stops in ((signal.SIGKILL, kills), (signal.SIGTERM, terms)):
        rng = random.Random(f"{seed} {number}")
        trainer = Trainer(folder, config, signal.Signals(number).name.lower())
        since = time.monotonic()
        met = run_chain(trainer, number, plan(stops, steps, rng), rng)
        chains.append(
            Chain(
                number,
                tuple(met),
                len(met) + 1,
                arrays=differing(arrays, bits(trainer.workdir, steps)),
                samples=differing(samples, read_samples(samples_path(trainer.workdir))),
                losses=differing(expected, losses(trainer.workdir)),
                seconds=time.monotonic() - since,
            )
        )
    return chains


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 1 if a run ended otherwise than the unbroken one, or shows nothing."""
    parser = parser_of(__file__, __doc__, quick="4 kills, asked to stop twice, 60 steps")
    parser.add_argument("--steps", type=count, default=200, help="steps of a run (default: 200)")
    parser.add_argument("--kills", type=count, default=20, help="times kill -9 (default: 20)")
    parser.add_argument("--terms", type=count, default=10, help="asked to stop (default: 10)")
    parser.add_argument("--seed", type=count_or_none, default=0, help="of the moments (default: 0)")
    parser.add_argument("--folder", type=Path, help="keeps the runs here (default: nowhere)")
    options = parser.parse_args(arguments)
    if options.quick:
        options.steps, options.kills, options.terms = 60, 4, 2
    if options.steps < _FEWEST:
        parser.error(f"--steps: two checkpoints follow each stop: at least {_FEWEST} are needed")
    with tempfile.TemporaryDirectory() as temporary:
        chains = measure(
            options.folder or Path(temporary),
            steps=options.steps,
            kills=options.kills,
            terms=options.terms,
            seed=options.seed,
        )
    print(report(chains, options.steps))
    told = [dataclasses.asdict(one) for one in chains]
    write_json(options.json, {"commit": commit(), "chains": told})
    return 0 if all(chain.holds for chain in chains) else 1


if __name__ == "__main__":
    run_command(main)
