"""Signals in a command: the first one lets it clean up, a later one ends it at once.

Exit codes: 130 after Ctrl-C; 75 (EX_TEMPFAIL of sysexits.h) after SIGTERM or SIGUSR1, with which
a scheduler takes the machine back: what is done is kept, and the same command goes on from there.
"""

from __future__ import annotations

import _thread
import collections
import contextlib
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from types import FrameType
from typing import NoReturn

EXIT_CODE = 130  # what a shell reports: 128 + SIGINT
PREEMPTED_EXIT_CODE = 75
PREEMPTION = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)
)
ONE_PRESS = 1.0  # seconds within which signals are one press: `timeout` sends two
_LATER = 0.05  # seconds until a signal that came at a wrong time comes again
_PATIENCE = 15.0  # seconds for cleaning up; a library may also have swallowed the exception


class Preempted(KeyboardInterrupt):
    """SIGTERM or SIGUSR1: somebody else needs the machine."""


def reason(number: int) -> type[KeyboardInterrupt]:
    """The exception of a signal."""
    return Preempted if number in PREEMPTION else KeyboardInterrupt


def exit_code(error: KeyboardInterrupt) -> int:
    """The exit code of a command that this ended."""
    return PREEMPTED_EXIT_CODE if isinstance(error, Preempted) else EXIT_CODE


def is_urgent(number: int, seen: Collection[int]) -> bool:
    """Whether a later signal ends at once: Ctrl-C, or one that came before.

    A scheduler's other signal is but a reminder.
    """
    return number == signal.SIGINT or number in seen


def install(message: str, *, preemption: bool = False) -> None:
    """From now on the first SIGINT prints `message` and raises KeyboardInterrupt.

    One that comes later than `ONE_PRESS` ends the process, and so does cleaning up that takes too
    long. A thread sees to that: the main thread may be busy outside Python (a compiler, a codec).
    Who sets another handler meanwhile has all the time it wants.

    Args:
      message: one line: what is waited for, what is kept.
      preemption: SIGTERM and SIGUSR1, too: they raise Preempted.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    raised, repeats = False, collections.deque[int]()

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal raised
        if raised:  # again, it would only interrupt the cleaning up
            return
        if _in_collection(frame):
            repeats.append(number)
            again = threading.Timer(_LATER, _thread.interrupt_main, (number,))
            again.daemon = True
            again.start()
            return
        raised = True
        raise reason(number)

    signals = (signal.SIGINT, *(PREEMPTION if preemption else ()))
    watched = (read, message, signals, interrupt, repeats)
    threading.Thread(target=_watch, args=watched, daemon=True).start()
    for number in signals:
        signal.signal(number, interrupt)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)


def _in_collection(frame: FrameType | None) -> bool:
    """Whether Python's garbage collector has called this: it prints exceptions, and goes on."""
    callbacks = {getattr(callback, "__code__", None) for callback in gc.callbacks}
    while frame is not None:
        if frame.f_code in callbacks:
            return True
        frame = frame.f_back
    return False


def _watch(
    read: int,
    message: str,
    signals: Collection[int],
    handler: Callable[[int, FrameType | None], None],
    repeats: collections.deque[int],
) -> None:
    while (number := os.read(read, 1)[0]) not in signals:
        pass
    first, seen = time.monotonic(), {number}
    patience = _PATIENCE if signal.getsignal(number) is handler else None
    press = "Ctrl-C again" if number == signal.SIGINT else "a second one"
    name = "" if number == signal.SIGINT else f"{signal.Signals(number).name}: "
    os.write(2, f"\n{name}{message}; {press} ends at once\n".encode())
    while select.select([read], [], [], patience)[0]:
        later = os.read(read, 1)[0]
        if later not in signals:
            continue
        if repeats:  # nobody has pressed again
            repeats.popleft()
            continue
        if is_urgent(later, seen) and time.monotonic() - first > ONE_PRESS:
            number = later
            break
        seen.add(later)
    os._exit(exit_code(reason(number)()))


def heed_no_reminder() -> None:
    """From now on SIGTERM and SIGUSR1 change nothing: all is saved, and the command ends."""
    for number in PREEMPTION:
        signal.signal(number, signal.SIG_IGN)


def leave(message: str, code: int = EXIT_CODE) -> NoReturn:
    """Prints `message` and ends the process as interrupted, all cleaning up being done.

    The interpreter is not taken down: threads of libraries that were interrupted in the middle
    of something would hold that up, or crash in it.
    """
    for number in (signal.SIGINT, *PREEMPTION):
        signal.signal(number, signal.SIG_IGN)
    print(message, file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code)
