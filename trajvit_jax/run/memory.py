"""How much memory a program can still take: the machine's, or what a container leaves of it."""

from __future__ import annotations

from pathlib import Path

_GROUP = Path("/sys/fs/cgroup")
_MACHINE = Path("/proc/meminfo")


def free_memory(*, machine: Path = _MACHINE, group: Path = _GROUP) -> int | None:
    """Bytes; None where the system does not tell.

    Args:
      machine: Linux's list of what memory there is.
      group: of limits of a container: version 2, or version 1.
    """
    found = [_of_machine(machine)]
    for limit, used, statistics, cached in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        most, now = _number(group / limit), _number(group / used)
        if most is not None and now is not None:
            # Files that were read count as used, and give way.
            found.append(most - now + (_field(group / statistics, cached) or 0))
    known = [max(0, one) for one in found if one is not None]
    return min(known) if known else None


def _of_machine(path: Path) -> int | None:
    kilobytes = _field(path, "MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _field(path: Path, name: str) -> int | None:
    """The number behind a name, in a file of a name a line."""
    try:
        rows = [line.split() for line in path.read_text("ascii").splitlines()]
    except OSError:
        return None
    return next((int(row[1]) for row in rows if row[:1] == [name]), None)


def _number(path: Path) -> int | None:
    """A file's only number; None where there is no file, or 'max'."""
    try:
        text = path.read_text("ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
