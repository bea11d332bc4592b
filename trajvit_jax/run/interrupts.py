"""Signals that wait for the end of a step: Ctrl-C, and preemption by a scheduler."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

import jax

from tokenization.interrupts import ONE_PRESS, PREEMPTION, Preempted, is_urgent, reason


class StopRequest:
    """While active, the first SIGINT, SIGTERM or SIGUSR1 is only noted.

    Ctrl-C after any of them, or the same signal again, interrupts at once; so a scheduler may
    warn with SIGUSR1 and remind with SIGTERM without cutting off the save.

    Attributes:
      signal: number of the first signal that came; None = none yet.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._seen: set[int] = set()
        self._at_once = False
        self._before: dict[int, Callable[[int, FrameType | None], Any] | int | None] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, *PREEMPTION):
                self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    @property
    def requested(self) -> bool:
        """Whether a signal came."""
        return self.signal is not None

    def error(self, message: str) -> KeyboardInterrupt:
        """What to raise when all is saved: Preempted, or KeyboardInterrupt after Ctrl-C.

        A process that got no signal itself stops because another one did.
        """
        return (Preempted if self.signal is None else reason(self.signal))(message)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this a signal raises at once: for work that can be left, as an evaluation.

        Not with several processes, which would wait for one that left.

        Raises:
          KeyboardInterrupt: a signal came, or had come; `Preempted` is one.
        """
        if jax.process_count() > 1:
            yield
            return
        self._at_once = True
        try:
            if self.requested:
                raise self.error("")
            yield
        finally:
            self._at_once = False

    def _request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal is None:
            self.signal, self._since = number, now
            if self._at_once:
                raise self.error("")
        elif now - self._since > ONE_PRESS and is_urgent(number, self._seen):
            raise reason(number)
        self._seen.add(number)
