"""An engine without processes: all is done in this one, as debuggers and profilers want it."""

from __future__ import annotations

import collections
from types import TracebackType
from typing import Any

from tokenization.engines.protocol import Done, Make, News, Raised, Started


class _Here:
    """This process as a worker."""

    where = "this process"

    def __init__(self, make: Make) -> None:
        self.make: Make | None = make
        self.function: Any = None
        self.items = collections.deque[Any]()

    def give(self, item: Any) -> None:
        self.items.append(item)

    def kill(self) -> None:
        self.items.clear()


class InlineEngine:
    """One worker, which is this process: no video is given up for its time or memory."""

    def __init__(self) -> None:
        self._workers: list[_Here] = []

    def __enter__(self) -> InlineEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._workers.clear()

    def room(self) -> int:
        """See `Engine`."""
        return 1

    def start(self, make: Make) -> _Here:
        """See `Engine`."""
        self._workers.append(_Here(make))
        return self._workers[-1]

    def wait(self, seconds: float) -> list[News]:
        """Works on the next item; see `Engine`."""
        del seconds
        for worker in self._workers:
            try:
                if worker.make is not None:
                    make, worker.make = worker.make, None
                    worker.function = make()
                    return [Started(worker)]
                if worker.items:
                    return [Done(worker, worker.function(worker.items.popleft()))]
            except Exception as error:
                return [Raised(worker, error)]
        return []
