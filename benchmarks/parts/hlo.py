"""What a compiled program sends between devices, read from its text.

A loop's body stands in the text once; here it counts as often as the loop turns, which XLA notes.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}
_BYTES |= {"f32": 4, "s32": 4, "u32": 4, "f64": 8, "s64": 8, "u64": 8, "c64": 8}

# The first line of a computation, and where in the Python program an operation comes from.
HEAD = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
OP_NAME = re.compile(r'op_name="([^"]*)"')
_CALL = re.compile(r"(?:body|condition|calls|to_apply)=%?([\w.\-]+)")
_CALLS = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TURNS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_COLLECTIVE = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"(\w+)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices.

    Attributes:
      kind: of `KINDS`.
      size: bytes of the result on each device.
      group: how many devices exchange.
      times: how often it runs in one run of the program.
      name: where in the Python program it comes from, as XLA notes it.
    """

    kind: str
    size: int
    group: int
    times: int
    name: str

    @property
    def received(self) -> float:
        """Bytes that reach a device over a ring, all `times` together."""
        others = self.group - 1
        share = {
            "all-reduce": 2 * others / self.group,
            "all-gather": others / self.group,
            "reduce-scatter": others,
            "all-to-all": others / self.group,
            "collective-permute": 1,
        }[self.kind]
        return self.times * self.size * share


@dataclasses.dataclass(frozen=True)
class Loop:
    """A `while` of the program; `turns` is None where XLA does not know how often it runs."""

    name: str
    turns: int | None


def collectives(program: str, devices: int) -> list[Collective]:
    """All exchanges of an optimized HLO module.

    Args:
      program: its text, as `compiled.as_text()` gives it.
      devices: that run it.
    """
    bodies = _computations(program)
    entry = re.search(r"^ENTRY %?([\w.\-]+)", program, re.MULTILINE)
    if entry is None:
        raise ValueError("no HLO module: it has no ENTRY")
    return list(_walk(bodies, entry[1], 1, devices))


def loops(program: str) -> list[Loop]:
    """All loops of an optimized HLO module."""
    found = []
    for line in program.splitlines():
        if " while(" in line:
            turns, name = _TURNS.search(line), OP_NAME.search(line)
            found.append(Loop(name[1] if name else "", int(turns[1]) if turns else None))
    return found


def _computations(program: str) -> dict[str, list[str]]:
    bodies: dict[str, list[str]] = {}
    own: list[str] = []
    for line in program.splitlines():
        if head := HEAD.match(line):
            own = bodies.setdefault(head[1], [])
        elif line.startswith("  "):
            own.append(line)
    return bodies


def _walk(
    bodies: dict[str, list[str]], name: str, times: int, devices: int
) -> Iterator[Collective]:
    for line in bodies.get(name, ()):
        if found := _COLLECTIVE.search(line):
            origin, shapes = OP_NAME.search(line), _SHAPE.findall(found[1])
            if found[3] and found[2] != "all-reduce":  # operands stand before results
                shapes = shapes[len(shapes) // 2 :]
            yield Collective(
                found[2],
                sum(_size(*shape) for shape in shapes),
                _group(line, devices),
                times,
                origin[1] if origin else "",
            )
        turns = _TURNS.search(line) if " while(" in line else None
        inner = times * (int(turns[1]) if turns else 1)
        called = _CALL.findall(line)
        for names in _CALLS.findall(line):
            called += [one.strip().lstrip("%") for one in names.split(",")]
        for one in called:
            yield from _walk(bodies, one, inner, devices)


def _size(dtype: str, shape: str) -> int:
    return math.prod(int(length) for length in shape.split(",") if length) * _BYTES.get(dtype, 0)


def _group(line: str, devices: int) -> int:
    """Devices of a group, which XLA writes in one of three ways; without groups, all are one."""
    if listed := re.search(r"replica_groups=\{\{([\d,]*)\}", line):
        return listed[1].count(",") + 1
    if shaped := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(shaped[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\][^{]*\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", named[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", named[2])  # whole, or a part of one
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return devices
