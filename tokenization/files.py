"""Files that are whole or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

_PARTIAL = re.compile(r"\..*\.(\d+)\.partial", re.DOTALL)  # the number is that of the process


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str], *, lasting: bool = False) -> Iterator[Path]:
    """Yields a temporary name beside `path`; renames it if all went well, else removes it.

    Args:
      path: of the file.
      lasting: it is on the disk when this returns: a host that loses its power may else keep the
        new name and lose what was written. For what others are judged by.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes of several hosts may have one number.
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.{os.getpid()}.partial")
    try:
        yield partial
        if lasting:
            _sync(partial)
        partial.replace(path)
        if lasting and os.name == "posix":  # elsewhere a folder cannot be opened
            with contextlib.suppress(OSError):  # not every file system can do that
                _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes UTF-8; a reader sees the old file or the new one, never half of it, at any time."""
    with replacing(path, lasting=True) as partial:
        partial.write_text(text, "utf-8")


def _sync(path: Path) -> None:
    # To read is enough for a folder on POSIX; Windows wants a file that may be written.
    file = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def remove_leftovers(directory: str | os.PathLike[str]) -> None:
    """Removes the temporary files in a folder of processes on this machine that were killed."""
    for path in list(Path(directory).glob(".*.partial")):
        name = _PARTIAL.fullmatch(path.name)
        if name is None or _runs(int(name[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name != "posix":  # elsewhere os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        return True
    return True


def printable(path: str | os.PathLike[str]) -> str:
    """A path as text that any file can hold: byte 255, no UTF-8, becomes `\\udcff`."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode("utf-8")
