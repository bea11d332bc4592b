"""Records that cannot be used: told apart from a storage that fails.

A damaged record stays damaged: the run goes on without it, and says so. A disk or a network that
does not answer says nothing about the record: it is an OSError, after which a run starts again.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import TypeVar

from trajvit_jax.data.source import open_captions

T = TypeVar("T")

# ArrayRecord tells failed system calls as RuntimeError, and damage, too: by other words.
_SYSTEM_CALL = re.compile(r"\w+\(\) failed: ")


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that could not be used.

    Attributes:
      id: of the record.
      file: that holds it.
      reason: why.
    """

    id: str
    file: str
    reason: str


class UnusableRecord(ValueError):
    """A record that is damaged, or is not as the model reads it; the message says why."""


def read_record(source: Sequence[T], number: int) -> T:
    """`source[number]`, of records or their captions, where only two kinds of things go wrong.

    Raises:
      UnusableRecord: its bytes are no record any more.
      OSError: the storage cannot be read; the record may be whole.
    """
    try:
        return source[number]
    except (MemoryError, UnusableRecord):
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise UnusableRecord(_in_a_line(error)) from error  # of an image decoder
    # Whatever decoders raise when they meet other bytes: there is no common class.
    except Exception as error:
        if isinstance(error, RuntimeError) and _SYSTEM_CALL.match(str(error)):
            raise OSError(f"record {number} of {source!r} cannot be read: {error}") from error
        raise UnusableRecord(_in_a_line(error)) from error


def readable_captions(path: str, split: str, *, most: int) -> Iterator[str]:
    """All captions of a folder's records; what is damaged is passed over.

    Args:
      path: of the folder.
      split: of it.
      most: of more records, so many that lie evenly spread are read.

    Raises:
      RecordsError: as `open_records` says.
      OSError: the storage cannot be read.
    """
    captions = open_captions(path, split)
    count = len(captions)
    for place in range(min(count, most)):
        with contextlib.suppress(UnusableRecord):  # training will tell of it
            yield from read_record(captions, place * count // min(count, most))


def _in_a_line(error: Exception) -> str:
    return f"it cannot be decoded ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
