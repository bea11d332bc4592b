"""Which records each step read, as one short hash a step: the order of data, to compare runs by."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from trajvit_jax.run.json_lines import go_on_after, line, of_process, read_lines


def ids_hash(ids: Iterable[str]) -> str:
    """16 hex digits that tell lists of ids apart, their order included."""
    digest = hashlib.blake2b(digest_size=8)
    for one in ids:
        digest.update(one.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()


class SampleLog:
    """Appends a line a step to `samples.jsonl` in a workdir; use as a context.

    Args:
      workdir: of the run.
      step: where the run goes on; what a lost run wrote of later steps is dropped.
      process: number of this process; each but the first has a file of its own.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, step: int = 0, process: int = 0):
        path = samples_path(workdir, process)
        before = (_entry(*one) for one in read_samples(path).items() if one[0] <= step)
        self._file = go_on_after(path, before)

    def __enter__(self) -> SampleLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, step: int, ids: Iterable[str]) -> None:
        """Notes what a step read."""
        self._file.write(line(_entry(step, ids_hash(ids))))
        self._file.flush()


def samples_path(workdir: str | os.PathLike[str], process: int = 0) -> Path:
    """Where a process notes its samples."""
    return of_process(workdir, "samples", process)


def read_samples(path: str | os.PathLike[str]) -> dict[int, str]:
    """Hash of each step."""
    lines = (one for one in read_lines(path) if {"step", "ids_hash"} <= one.keys())
    return {one["step"]: one["ids_hash"] for one in lines}


def _entry(step: int, digest: str) -> dict[str, Any]:
    return {"step": step, "ids_hash": digest}
