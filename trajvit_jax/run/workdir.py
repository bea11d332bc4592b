"""One run at a time in a workdir."""

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


@contextlib.contextmanager
def lock(workdir: str | os.PathLike[str], *, process: int = 0) -> Iterator[None]:
    """Holds the workdir against a second run, on this host or on another that shares the folder.

    The kernel frees it when the process ends, however it ends; the file `.lock` stays and says
    who held it last. A file system without locks is told of in a warning, and nothing is held.

    Args:
      workdir: of the run; it is made if need be.
      process: number of this process in its run: 0 locks for all of them.

    Raises:
      BlockingIOError: another run holds it; the message says which.
    """
    if process != 0:
        yield
        return
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / ".lock"
    path.touch()
    # Not emptied on opening: until the lock is ours, this is the other's note.
    with path.open("r+", encoding="utf-8") as file:
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, "no flock on this system")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in _HELD:
                raise BlockingIOError(
                    f"{workdir} is in use by a run {_holder(file.read())}; wait for it, stop it, "
                    "or choose another --workdir"
                ) from None
            _LOG.warning(
                "%s cannot be locked (%s): see to it that no second run uses it", workdir, error
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


def _holder(text: str) -> str:
    try:
        note = json.loads(text)
        return f"on host {note['host']}, pid {note['pid']}, since {note['since']}"
    except (ValueError, KeyError, TypeError):  # it is just being written
        return "that has just begun"
