"""What is done of shards that are not finished: a run that is cut off, even killed, keeps it.

One file a shard, of one outcome after the other: a line with a sum and a description, then the
bytes of the record. It is only appended to, and removed when the shard is written; a reader takes
what comes before the first outcome that is cut off or damaged. Videos without a record are not
noted: they are tried again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

from tokenization import records
from tokenization.files import replacing
from tokenization.recorder import Outcome
from tokenization.shard_files import journal_path, journals

_NOTED = tuple(
    field.name for field in dataclasses.fields(Outcome) if field.name not in ("data", "quarantined")
)


def append(path: Path, key: str, outcome: Outcome) -> None:
    """Adds the outcome of an entry that became a record.

    Args:
      path: of the shard's journal; it is made if need be.
      key: hash of all that the outcome depends on.
      outcome: of the entry.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(_to_bytes(key, outcome))
    except OSError as error:
        raise OSError(
            f"{path} cannot be written ({error.strerror or error}); free disk space and run "
            "again: what is finished is kept"
        ) from error


def read(directory: Path, split: str) -> dict[str, Outcome]:
    """All outcomes of a split's journals, by key."""
    return {key: one for path in journals(directory, split) for key, one in _read(path).items()}


def restart(directory: Path, split: str, begun: Mapping[int, Mapping[str, Outcome]]) -> None:
    """Leaves journals of these outcomes, by the number of their shard and by key, and no others.

    One that is as wanted is not written again: the disk may be full, which ended the last run.

    Raises:
      OSError: the disk is full or cannot be written.
    """
    old = set(journals(directory, split))
    for index, outcomes in begun.items():
        if outcomes:
            path = journal_path(directory, split, index)
            old.discard(path)
            data = b"".join(_to_bytes(*item) for item in outcomes.items())
            if not _holds(path, len(data), outcomes):
                with replacing(path, lasting=True) as partial:
                    partial.write_bytes(data)
    for path in old:
        path.unlink(missing_ok=True)


def _holds(path: Path, size: int, outcomes: Mapping[str, Outcome]) -> bool:
    """Whether it is a journal of these, in any order, with nothing damaged after them."""
    return path.is_file() and path.stat().st_size == size and _read(path).keys() == outcomes.keys()


def _to_bytes(key: str, outcome: Outcome) -> bytes:
    noted = {name: getattr(outcome, name) for name in _NOTED}
    line = records.to_json({"key": key, "bytes": len(outcome.data), **noted}).encode()
    return _sum(line, outcome.data) + b" " + line + b"\n" + outcome.data


def _sum(line: bytes, data: bytes) -> bytes:
    return hashlib.sha256(line + b"\n" + data).hexdigest().encode()


def _read(path: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    file = io.BytesIO(path.read_bytes())
    while head := file.readline():
        given, _, line = head.removesuffix(b"\n").partition(b" ")
        try:
            noted = json.loads(line)
            data = file.read(noted.pop("bytes"))
            key = noted.pop("key")
            outcome = dataclasses.replace(Outcome(**noted), data=data)
        except (ValueError, TypeError, KeyError, AttributeError):  # cut off, or damaged
            break
        if _sum(line, data) != given:
            break
        found[key] = outcome
    return found
