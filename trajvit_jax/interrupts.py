"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

from tokenization.interrupts import ONE_PRESS


class StopRequest:
    """While active, the first SIGINT only sets `requested`; a later one interrupts at once."""

    def __init__(self) -> None:
        self.requested = False
        self._since = 0.0

    def __enter__(self) -> StopRequest:
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = signal.signal(signal.SIGINT, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._in_main:
            signal.signal(signal.SIGINT, self._before)

    def _request(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.requested:
            self.requested, self._since = True, now
        elif now - self._since > ONE_PRESS:
            raise KeyboardInterrupt
