"""Worker processes of an extraction that runs: which they are."""

from __future__ import annotations

from pathlib import Path

# What a worker's command line begins with, or has in it, by engine.
WORKER = {"local": "multiprocessing.spawn import spawn_main", "ray": "ray::_Remote"}


def worker_processes(of: int, engine: str) -> list[int]:
    """Processes below `of` that are workers of the engine."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        children.setdefault(parent, []).append(int(path.name))
    found, below = [], [of]
    while below:
        for process in children.get(below.pop(), []):
            below.append(process)
            try:
                line = Path(f"/proc/{process}/cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            if WORKER[engine] in line:
                found.append(process)
    return found
