"""Timing of contenders side by side: interleaved rounds and medians, for ratios."""

from __future__ import annotations

import ctypes
import dataclasses
import gc
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do one thing.

    Attributes:
      stage: the thing.
      name: the way.
      run: does it and waits until it is done.
      flops: of one run, by the formula; None = unknown.
      memory: bytes needed beside inputs and outputs; None = unknown.
      traffic: bytes read and written; None = unknown.
    """

    stage: str
    name: str
    run: Callable[[], object]
    flops: float | None = None
    memory: float | None = None
    traffic: float | None = None


@dataclasses.dataclass(frozen=True)
class Timing:
    """What was measured of one contender; seconds of each round, warm-up left out."""

    stage: str
    name: str
    seconds: tuple[float, ...]
    flops: float | None
    memory: float | None
    traffic: float | None

    @property
    def median(self) -> float:
        """Seconds of one run."""
        return statistics.median(self.seconds)


def race(contenders: Sequence[Contender], rounds: int) -> list[Timing]:
    """Runs all contenders in turn, `rounds` times after one warm-up.

    In turn, so that what else the machine does meets all of them alike, and every round in
    another order, so that none always finds the cold caches and fresh pages of the same neighbour.
    """
    seconds: list[list[float]] = [[] for _ in contenders]
    turns, draws = list(zip(contenders, seconds, strict=True)), random.Random(0)
    total = (rounds + 1) * len(contenders)
    # `disable=None`: no bar where nobody looks, as its lines would fill a log.
    with tqdm(total=total, unit="run", leave=False, mininterval=1, disable=None) as bar:
        for number in range(rounds + 1):
            draws.shuffle(turns)
            for contender, own in turns:
                bar.set_description(f"{contender.stage}, {contender.name}")
                start = time.perf_counter()
                contender.run()
                if number:
                    own.append(time.perf_counter() - start)
                bar.update()
    return [
        Timing(one.stage, one.name, tuple(own), one.flops, one.memory, one.traffic)
        for one, own in zip(contenders, seconds, strict=True)
    ]


def peak_growth(run: Callable[[], object]) -> float | None:
    """By how many bytes this process grows at most while `run` runs; None where Linux is not.

    An estimate for programs that do not say what they allocate: memory that the allocator kept
    from before is asked back first, and what it still keeps is not seen.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    run()  # what a library keeps for ever is not of this run
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew from here
    before = _kilobytes(status, "VmRSS")
    run()
    return 1024.0 * max(0, _kilobytes(status, "VmHWM") - before)


def _kilobytes(status: Path, name: str) -> int:
    line = next(line for line in status.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


def ratio(timings: Sequence[Timing], slow: tuple[str, str], fast: tuple[str, str]) -> float:
    """How many times faster `fast` is than `slow`: the median over rounds.

    Each is named by stage and name. Rounds are compared one by one: a slow moment of the
    machine mostly falls on both sides of a quotient.

    Raises:
      KeyError: one that was not measured.
    """
    by_name = {(one.stage, one.name): one for one in timings}
    pairs = zip(by_name[slow].seconds, by_name[fast].seconds, strict=True)
    return statistics.median(one / other for one, other in pairs)


def share(
    timings: Sequence[Timing], parts: Sequence[tuple[str, str]], whole: tuple[str, str]
) -> float:
    """The part of `whole`'s time that `parts` take together: the median over rounds."""
    by_name = {(one.stage, one.name): one for one in timings}
    sums = [sum(times) for times in zip(*(by_name[part].seconds for part in parts), strict=True)]
    return statistics.median(a / b for a, b in zip(sums, by_name[whole].seconds, strict=True))


def table(timings: Sequence[Timing], ceiling: str = "ceiling") -> str:
    """One line a contender: median, spread, memory, and how near it comes to the ceilings.

    Args:
      timings: of all contenders; those of stage `ceiling` are what the device can do.
      ceiling: that stage.
    """
    limits = [one for one in timings if one.stage == ceiling]
    flops = max((one.flops / one.median for one in limits if one.flops), default=None)
    traffic = max((one.traffic / one.median for one in limits if one.traffic), default=None)
    head = f"{'stage':12} {'way':14} {'median ms':>10} {'min..max':>15} {'temp MB':>9}"
    lines = [f"{head} {'GFLOP/s':>14} {'GB/s':>14}"]
    for one in timings:
        spread = f"{1e3 * min(one.seconds):.0f}..{1e3 * max(one.seconds):.0f}"
        memory = "-" if one.memory is None else f"{one.memory / 1e6:.1f}"
        rates = (_rate(one.flops, one.median, flops), _rate(one.traffic, one.median, traffic))
        lines.append(
            f"{one.stage:12} {one.name:14} {1e3 * one.median:10.1f} {spread:>15} {memory:>9} "
            f"{rates[0]:>14} {rates[1]:>14}"
        )
    return "\n".join(lines)


def _rate(amount: float | None, seconds: float, ceiling: float | None) -> str:
    if amount is None:
        return "-"
    rate = amount / seconds
    share = f" ({rate / ceiling:.0%})" if ceiling else ""
    return f"{rate / 1e9:,.0f}{share}"
