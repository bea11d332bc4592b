"""Which records each step read, as one short hash a step: the order of data, to compare runs by."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from tokenization.files import write_text


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
        lines = [line for line in read_samples(path).items() if line[0] <= step]
        write_text(path, "".join(_line(*line) for line in lines))
        self._file = path.open("a", encoding="utf-8")

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
        self._file.write(_line(step, ids_hash(ids)))
        self._file.flush()


def samples_path(workdir: str | os.PathLike[str], process: int = 0) -> Path:
    """Where a process notes its samples."""
    return Path(workdir) / (f"samples-{process}.jsonl" if process else "samples.jsonl")


def read_samples(path: str | os.PathLike[str]) -> dict[int, str]:
    """Hash of each step; a line that was cut off does not count."""
    samples: dict[int, str] = {}
    path = Path(path)
    for line in path.read_text("utf-8").splitlines() if path.exists() else []:
        try:
            entry = json.loads(line)
            samples[entry["step"]] = entry["ids_hash"]
        except (json.JSONDecodeError, KeyError, TypeError):
            continue
    return samples


def _line(step: int, digest: str) -> str:
    return json.dumps({"step": step, "ids_hash": digest}) + "\n"
