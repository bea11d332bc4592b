"""What a checkpoint file is by its content, before any library opens it."""

from __future__ import annotations

import codecs
import enum
import zipfile
from pathlib import Path

_HEAD = 1024  # bytes to look at
# The start of what PyTorch wrote before 1.6 (later: a zip): its magic number, pickled.
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_LONGEST_HEADER = 100_000_000  # bytes; the safetensors library allows no more


class CheckpointError(ValueError):
    """A file that cannot be read as a checkpoint; the message names it, and says what helps."""


class Content(enum.Enum):
    """What a file holds; the value completes the sentence "FILE is ..."."""

    SAFETENSORS = "a safetensors file; name it *.safetensors"
    NPZ = "a NumPy archive; name it *.npz"
    TORCH = "a PyTorch file; name it *.pt"
    PICKLE = (
        "a Python pickle, which is not opened, as that could run code; only if you trust whoever "
        "made it, open it and save its arrays with safetensors.numpy.save_file"
    )
    EMPTY = "empty (0 bytes); download it again"
    POINTER = "the pointer that Git LFS leaves in place of a file; fetch the file: git lfs pull"
    TEXT = "text, no checkpoint; download it again and look at its first lines"
    UNKNOWN = "damaged, or of a format that is not known here; download it again"


def content_of(path: Path) -> Content:
    """Looks at the first bytes and, in a zip, at the names of its members.

    Raises:
      OSError: a file that cannot be opened.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if not head:
        return Content.EMPTY
    if head.startswith(b"version https://git-lfs"):
        return Content.POINTER
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _LONGEST_HEADER:
        return Content.SAFETENSORS
    if head.startswith(b"PK"):
        return _content_of_zip(path)
    if head.startswith(_OLD_TORCH):
        return Content.TORCH
    if head[0] == 0x80 and head[1:2] <= b"\x05":  # a protocol's number; older ones have no mark
        return Content.PICKLE
    return Content.TEXT if _is_text(head) else Content.UNKNOWN


def _content_of_zip(path: Path) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # zipfile raises half a dozen kinds of error at damaged files
        return Content.UNKNOWN
    if any(name.rpartition("/")[2] == "data.pkl" for name in names):
        return Content.TORCH
    return Content.NPZ if all(name.endswith(".npy") for name in names) else Content.UNKNOWN


def _is_text(head: bytes) -> bool:
    try:  # an incremental decoder allows the head to end inside a character
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return b"\0" not in head
