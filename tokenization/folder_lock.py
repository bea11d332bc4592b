"""One at a time: who writes to a folder, on this host or on another that shares it, or a file."""

from __future__ import annotations

import contextlib
import datetime
import errno
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOG = logging.getLogger(__name__)
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


class FolderInUse(BlockingIOError):
    """Another process writes to the folder; the message says which."""


@contextlib.contextmanager
def only_writer(folder: str | os.PathLike[str], *, option: str = "--output") -> Iterator[None]:
    """Holds a folder against other writers.

    The kernel frees it when the process ends, however it ends; the file `.lock` stays and says
    who held it last. A file system without locks is told of in a warning, and nothing is held.

    Args:
      folder: it is made if need be.
      option: of the command, which names the folder.

    Raises:
      FolderInUse: another process holds it.
      OSError: it cannot be made or written; the message names the option.
    """
    folder = Path(folder)
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise type(error)(
            f"{folder} cannot be written ({error.strerror or error}); choose another {option}, "
            "where you may write, or make this one writable"
        ) from error
    # Not emptied on opening: until the lock is ours, this is the other's note.
    with path.open("r+", encoding="utf-8") as file:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock on this system")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise FolderInUse(
                    f"{folder} is in use by another process {_holder(file.read())}; wait for it, "
                    f"stop it, or choose another {option}"
                ) from None
            _LOG.warning(
                "%s cannot be locked (%s): see to it that nobody else writes to it", folder, error
            )
        note = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "since": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        file.seek(0)
        file.truncate()
        file.write(json.dumps(note) + "\n")
        file.flush()
        yield


def writer_of(folder: str | os.PathLike[str]) -> str | None:
    """Who holds a folder as `only_writer` does, for messages; None = nobody, or no locks here."""
    if fcntl is None:
        return None
    with contextlib.suppress(OSError), (Path(folder) / ".lock").open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return _holder(file.read()) if error.errno in _HELD else None
    return None


@contextlib.contextmanager
def held(path: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a file against all others who do so; waits until they let go of it.

    The file is made if need be, and stays. Where there are no locks, nobody waits.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _holder(text: str) -> str:
    try:
        note = json.loads(text)
        return f"on host {note['host']}, pid {note['pid']}, since {note['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "that has just begun"
