"""Ctrl-C in a command: the first one lets it clean up, a later one ends it at once."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130  # what a shell reports: 128 + SIGINT
ONE_PRESS = 1.0  # seconds within which signals are one press: `timeout` sends two
_PATIENCE = 15.0  # seconds for cleaning up; a library may also have swallowed the exception


def install(message: str) -> None:
    """From now on the first SIGINT prints `message` and raises KeyboardInterrupt.

    One that comes later than `ONE_PRESS` ends the process, and so does cleaning up that takes too
    long. A thread sees to that: the main thread may be busy outside Python (a compiler, a codec).
    Who sets another handler meanwhile has all the time it wants.

    Args:
      message: one line: what is waited for, what is kept.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    raised = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if not raised:  # again, it would only interrupt the cleaning up
            raised = True
            raise KeyboardInterrupt

    threading.Thread(target=_watch, args=(read, message, interrupt), daemon=True).start()
    signal.signal(signal.SIGINT, interrupt)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def _watch(read: int, message: str, handler: Callable[[int, FrameType | None], None]) -> None:
    while os.read(read, 1)[0] != signal.SIGINT:
        pass
    first = time.monotonic()
    patience = _PATIENCE if signal.getsignal(signal.SIGINT) is handler else None
    os.write(2, f"\n{message}; Ctrl-C again ends at once\n".encode())
    while select.select([read], [], [], patience)[0]:
        number = os.read(read, 1)[0]
        if number == signal.SIGINT and time.monotonic() - first > ONE_PRESS:
            break
    os._exit(EXIT_CODE)


def leave(message: str) -> NoReturn:
    """Prints `message` and ends the process as interrupted, all cleaning up being done.

    The interpreter is not taken down: threads of libraries that were interrupted in the middle
    of something would hold that up, or crash in it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(message, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(EXIT_CODE)
