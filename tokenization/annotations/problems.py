"""What can be wrong with annotation files: all of them, or one item."""

from __future__ import annotations

import dataclasses
from pathlib import Path


class AnnotationError(ValueError):
    """Input that no manifest can be made of; the message says what to do."""


class ItemError(ValueError):
    """One item of an annotation file cannot be understood; the file's other items may be."""


@dataclasses.dataclass(frozen=True)
class Malformed:
    """An item that gave no entry.

    Attributes:
      file: of the annotations (or of the media, where those are all there is).
      where: in the file, for example "line 7".
      reason: what is wrong.
      remedy: what to do.
    """

    file: Path
    where: str
    reason: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file} {self.where}: {self.reason}; {self.remedy}"


def shown(found: object) -> str:
    """A value for a message."""
    result = repr(found)
    return result if len(result) <= 60 else result[:57] + "..."
