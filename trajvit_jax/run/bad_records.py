"""Records that could not be used: each named once, and too many are the end of a run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from trajvit_jax.data.unusable import BadRecord
from trajvit_jax.failures import ComesAgain
from trajvit_jax.run.json_lines import line, of_process, read_lines

_ALWAYS = 10  # of a run: so many are never too many
_ONE_IN = 10  # of a batch: at most so many; one may always be


class BadRecords:
    """Names bad records in `bad_records.jsonl` in a workdir, and gives up in time.

    What an earlier part of the run wrote stays, and is not written again: a record is damaged
    whichever step meets it.

    Args:
      workdir: of the run.
      share: of all records read that may be bad.
      process: number of this process; each but the first has a file of its own.
    """

    def __init__(self, workdir: str | os.PathLike[str], *, share: float, process: int = 0):
        self._workdir, self._share = Path(workdir), share
        self._path = of_process(workdir, "bad_records", process)
        self._known = set(read_bad_records(self._path))

    def note(self, step: int, records: Iterable[BadRecord]) -> None:
        """Names those that are new, with the step that met them."""
        new = dict.fromkeys(one for one in records if one not in self._known)
        if not new:
            return
        lines = [line({"step": step, **dataclasses.asdict(one)}) for one in new]
        with self._path.open("a", encoding="utf-8") as file:
            if _was_cut_off(self._path):
                file.write("\n")
            file.write("".join(lines))
        self._known.update(new)

    def check(self, step: int, *, absent: int, batch: int, bad: int, read: int) -> None:
        """Gives up where too many are bad; the numbers are of all processes together.

        Args:
          step: that was just made.
          absent: of its samples.
          batch: its size.
          bad: records that the run could not use so far, as often as it met them,
          read: of so many.

        Raises:
          ComesAgain: more than a tenth of the batch, or more than the share of the run; the
            message names the file that says which, and why.
        """
        if absent > max(1, batch // _ONE_IN):
            self._give_up(f"{absent} of the {batch} records of step {step} cannot be used")
        if bad > max(_ALWAYS, self._share * read):
            self._give_up(
                f"{bad} of the {read} records read up to step {step} cannot be used, more than "
                f"data.max_bad = {self._share:g} of them"
            )

    def _give_up(self, what: str) -> None:
        names = sorted(path.name for path in self._workdir.glob("bad_records*.jsonl"))
        raise ComesAgain(
            f"{what}; {self._workdir / ' and '.join(names)} says which and why. Mend or extract "
            "them again, or raise data.max_bad"
        )


def read_bad_records(path: str | os.PathLike[str]) -> list[BadRecord]:
    """The records that a file names."""
    names = [field.name for field in dataclasses.fields(BadRecord)]
    lines = (one for one in read_lines(path) if set(names) <= one.keys())
    return [BadRecord(*(one[name] for name in names)) for one in lines]


def _was_cut_off(path: Path) -> bool:
    """Whether the last line has no end."""
    data = path.read_bytes()
    return bool(data) and not data.endswith(b"\n")
