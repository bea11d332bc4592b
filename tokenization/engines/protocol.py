"""What the crew asks of an engine: workers that take items, and news of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

Make = Callable[[], Callable[[Any], Any]]
"""Builds the function that a worker applies to items; called once in each worker, picklable."""


@runtime_checkable
class LooksAhead(Protocol):
    """A function for items that can begin with one before its turn comes."""

    def ahead(self, item: Any) -> None:
        """Begins with an item that has come and may wait; returns at once, in another thread."""
        ...


class EngineError(RuntimeError):
    """Workers cannot start, or end one after the other whatever they are given."""


class WorkerUnfit(EngineError):
    """What a worker's function, or its making, raises when its process is at fault, not the item.

    Memory ran out, the device failed, or weights cannot be downloaded there. The worker ends, as
    if it had died, and its items go to others; in an engine without processes, the run ends.
    """


@runtime_checkable
class Worker(Protocol):
    """A process that works on items one by one, in the order in which they were given."""

    @property
    def where(self) -> str:
        """For messages: the machine and the process."""
        ...

    def give(self, item: Any) -> None:
        """Puts an item behind those that the worker has; returns at once."""
        ...

    def kill(self) -> None:
        """Ends the worker, whatever it is doing; no news of it follow."""
        ...


@dataclasses.dataclass(frozen=True)
class Started:
    """The worker has made its function and can take items."""

    worker: Worker


@dataclasses.dataclass(frozen=True)
class Done:
    """The worker's oldest item is done."""

    worker: Worker
    result: Any


@dataclasses.dataclass(frozen=True)
class Raised:
    """Making the function, or the function for the worker's oldest item, raised."""

    worker: Worker
    error: Exception


@dataclasses.dataclass(frozen=True)
class Ended:
    """The worker is no more.

    Attributes:
      worker: that worker.
      reason: for messages.
      lost: its machine went away with it, which is no fault of the item.
    """

    worker: Worker
    reason: str
    lost: bool = False


News = Started | Done | Raised | Ended


@runtime_checkable
class Engine(Protocol):
    """Gives workers. Nothing is started before the engine is entered; leaving it ends them all."""

    def __enter__(self) -> Engine: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def room(self) -> int:
        """Workers that the engine has room for now, those that run included."""
        ...

    def start(self, make: Make) -> Worker:
        """Starts a worker and returns at once; `Started` follows when it can take items."""
        ...

    def wait(self, seconds: float) -> list[News]:
        """News of the workers, in order; waits for the first at most so many seconds."""
        ...
