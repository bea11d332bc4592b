"""Where the device's time goes in a compiled step: a profile of it, by the step's named scopes.

XLA notes with the operations of the program the scopes that they come from, a gradient's too, and
with a fusion those of its last operation; the profiler notes with its events which operation ran.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax

from benchmarks.parts.hlo import HEAD, OP_NAME
from trajvit_jax.run.profiling import Profiler, ProfileSettings

SCOPES = ("augmentation", "backbone", "tokens", "transformer", "text", "loss", "optimizer")
OTHER, IDLE = "other", "idle"

_MODULE = re.compile(r"^HloModule ([\w.\-]+)")
_OPERATION = re.compile(r"^ +(?:ROOT )?%?([\w.\-]+) = ")
_ENCLOSING = re.compile(r" (?:while|conditional|call)\(")
_FUSED = re.compile(r"calls=%?([\w.\-]+)")
_BORDER = re.compile(r"[/();]")


class Operation(NamedTuple):
    """Of a compiled program: the part of the step it belongs to, and whether it runs others."""

    part: str
    encloses: bool


class Event(NamedTuple):
    """An operation that ran, from and to in nanoseconds."""

    start: float
    end: float
    operation: Operation


def profile(run: Callable[[], Any], program: str, steps: int) -> dict[str, float]:
    """Seconds a step by part, in the order of the step: `SCOPES`, `OTHER` and `IDLE`.

    They add up to the time from the first operation's start to the last one's end. Empty, if the
    profiler saw no operation of the program.

    Args:
      run: starts a step and returns arrays of it; compiled, and warm.
      program: its text, as `compiled.as_text()` gives it.
      steps: that are profiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        running = None
        with Profiler(ProfileSettings(start=1, steps=steps), Path(folder)) as profiler:
            for number in range(1, steps + 1):
                profiler.before(number, running)
                running = run()
            profiler.before(steps + 1, running)
        files = sorted(Path(folder).rglob("*.xplane.pb"))
        traces = [jax.profiler.ProfileData.from_file(str(file)) for file in files]
        found = [event for trace in traces for event in events(trace, program)]
    shares = shared(found)
    order = [name for name in (*SCOPES, OTHER, IDLE) if name in shares]
    return {name: shares[name] / steps / 1e9 for name in order}


def operations(program: str) -> dict[str, Operation]:
    """All operations of a program's text, by name.

    A fusion that XLA made without a note, as for a layout, is of the part that most of its
    operations are of.
    """
    found: dict[str, Operation] = {}
    inside: dict[str, Counter[str]] = {}
    computation = ""
    for line in program.splitlines():
        if head := HEAD.match(line):
            computation = head[1]
        if match := _OPERATION.match(line):
            came, calls = OP_NAME.search(line), _FUSED.search(line)
            part = _part(came[1]) if came else OTHER
            # What a computation is made of stands before what calls it.
            if part == OTHER and calls and (most := inside.get(calls[1])):
                part = most.most_common(1)[0][0]
            if part != OTHER:
                inside.setdefault(computation, Counter())[part] += 1
            found[match[1]] = Operation(part, _ENCLOSING.search(line) is not None)
    return found


def events(trace: jax.profiler.ProfileData, program: str) -> Iterator[Event]:
    """What ran of a program: on the devices, or, where these are the host's cores, there."""
    module, known = _MODULE.match(program), operations(program)
    planes = list(trace.planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    for line in itertools.chain.from_iterable(plane.lines for plane in devices or planes):
        for event in line.events:
            told = dict(event.stats)
            if "hlo_op" in told and module and told.get("hlo_module", module[1]) == module[1]:
                operation = known.get(told["hlo_op"], Operation(OTHER, False))
                yield Event(event.start_ns, event.end_ns, operation)


def shared(events: Iterable[Event]) -> dict[str, float]:
    """Nanoseconds by part, with `IDLE`: what runs at the same time shares it.

    A loop or call counts only while nothing that it runs does.
    """
    edges = []
    for event in events:
        edges += [(event.start, 1, event.operation), (event.end, -1, event.operation)]
    found: Counter[str] = Counter()
    running: dict[bool, Counter[str]] = {False: Counter(), True: Counter()}
    before = None
    for time, change, operation in sorted(edges, key=lambda edge: edge[0]):
        if before is not None:
            own = running[False] if running[False].total() else running[True]
            for part, count in own.items():
                found[part] += (time - before) * count / max(own.total(), 1)
            if not own.total():
                found[IDLE] += time - before
        running[operation.encloses][operation.part] += change
        before = time
    return dict(found)


def _part(name: str) -> str:
    """The outermost scope of the step in `jit(step)/transpose(jvp(tokens))/dot_general`."""
    return next((word for word in _BORDER.split(name) if word in SCOPES), OTHER)
