"""Hands items to an engine's workers, and decides what happens when a worker dies or is stuck."""

from __future__ import annotations

import collections
import dataclasses
import logging
import time
from collections.abc import Callable, Collection, Generator, Sequence
from typing import Any, Generic, TypeVar

from tokenization.engines.protocol import (
    Done,
    Ended,
    Engine,
    EngineError,
    Make,
    Raised,
    Started,
    Worker,
)

Item = TypeVar("Item")
Result = TypeVar("Result")

DIED = "the process that read it died"
LATE = "it took too long"

_LOG = logging.getLogger(__name__)
_AHEAD = 2  # items that a worker has: one that it works on, one that waits for it
_LOOK = 5.0  # seconds at most between two looks at the clock and at the engine's room
_START_TRIES = 3
_START_DOUBLINGS = 7  # of half a second: a machine that never is fit is tried once a minute
_LONG_START = 60.0  # seconds


@dataclasses.dataclass(frozen=True)
class Patience:
    """When an item is given up.

    Attributes:
      tries: workers that may die of it, or be killed because it took too long.
      seconds: for one try; None = any time.
      in_a_row: items that may fail for one reason, one after the other, before the machine is
        suspected in their place; None = any number.

    Raises:
      ValueError: less than one try, no time, or less than two in a row.
    """

    tries: int = 3
    seconds: float | None = 1800.0
    in_a_row: int | None = 200

    def __post_init__(self) -> None:
        if self.in_a_row is not None and self.in_a_row < 2:
            raise ValueError(f"in_a_row={self.in_a_row} must be at least 2")
        if self.tries < 1 or (self.seconds is not None and self.seconds <= 0):
            raise ValueError(f"tries={self.tries} must be >= 1, seconds={self.seconds} above 0")


@dataclasses.dataclass(eq=False)
class _Task:
    """An item, its number, and what happened in its failed tries."""

    number: int
    item: Any
    troubles: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(eq=False)
class _Hand:
    """A worker, the tasks that it has, and since when it works on the first of them."""

    worker: Worker
    started: bool = False
    tasks: collections.deque[_Task] = dataclasses.field(default_factory=collections.deque)
    since: float = 0.0


class Crew(Generic[Item, Result]):
    """Works on items with as many workers as the engine has room for.

    The worker that dies costs only time: its items go to the others. An item of which `tries`
    workers died, or for which they took too long, is given up. Of an item that was worked on
    twice, one result counts.

    Args:
      engine: entered already.
      make: builds the function of each worker.
      give_up: the result of an item that was given up, from its troubles, `DIED` or `LATE`.
      patience: when that is.
      name: of an item, for messages.
    """

    def __init__(
        self,
        engine: Engine,
        make: Make,
        *,
        give_up: Callable[[Item, tuple[str, ...]], Result],
        patience: Patience | None = None,
        name: Callable[[Item], str] = str,
    ) -> None:
        self._engine = engine
        self._make = make
        self._give_up = give_up
        self._patience = self._usual_patience = patience or Patience()
        self._name = name
        self._hands: dict[Worker, _Hand] = {}
        self._todo = collections.deque[_Task]()
        self._failed_starts = 0
        self._next_start = 0.0
        self._deaths = 0  # since the last result
        self.most = 0
        """The most workers that there were at a time."""

    def map(
        self, items: Sequence[Item], patience: Patience | None = None
    ) -> Generator[tuple[int, Result], None, None]:
        """Yields number and result of every item, in the order in which they are done.

        Items are begun in order. Workers stay for the next call.

        Args:
          items: to be worked on.
          patience: when one is given up; by default that of the crew.

        Raises:
          EngineError: workers cannot start, or die without end; no item is blamed for that.
          Exception: what `make`, or the function for an item, raises.
        """
        self._patience = patience or self._usual_patience
        self._todo = collections.deque(_Task(number, item) for number, item in enumerate(items))
        warn_at = time.monotonic() + _LONG_START
        while True:
            self._hand_out()
            left = len(self._todo) + sum(len(hand.tasks) for hand in self._hands.values())
            if not left:
                return
            self._hire(left)
            told = self._engine.wait(self._seconds_to_look())
            # Before the caller takes its time with results: those that have told are not late.
            yield from self._end_the_late({news.worker for news in told})
            for news in told:
                hand = self._hands.get(news.worker)
                if hand is None:  # it was killed meanwhile
                    continue
                match news:
                    case Started():
                        self._failed_starts = 0
                        hand.started = True
                    case Done(result=result):
                        self._deaths = 0
                        hand.since = time.monotonic()
                        yield hand.tasks.popleft().number, result
                    case Raised(error=error):
                        raise error
                    case Ended(reason=reason, lost=lost):
                        yield from self._bury(hand, reason, lost=lost)
            self.most = max(self.most, sum(hand.started for hand in self._hands.values()))
            if not self.most and time.monotonic() > warn_at:
                _LOG.warning("no worker has started yet: is there room for one?")
                warn_at = time.monotonic() + 10 * _LONG_START

    def _hand_out(self) -> None:
        """Gives tasks to those who have least, and at the end none that another could begin."""
        for waiting in range(_AHEAD):
            keep = 0 if waiting == 0 else len(self._hands)
            for hand in self._hands.values():
                room = hand.started and len(hand.tasks) == waiting
                if len(self._todo) > keep and room and self._may_join(hand):
                    task = self._todo.popleft()
                    if not hand.tasks:
                        hand.since = time.monotonic()
                    hand.tasks.append(task)
                    hand.worker.give(task.item)

    def _may_join(self, hand: _Hand) -> bool:
        """Whether the next task may wait behind those of a worker.

        Of two tasks the second may have been the deadly one: the result of the first can be lost
        with its worker. What has failed once goes alone.
        """
        return not hand.tasks or not any(task.troubles for task in (*hand.tasks, self._todo[0]))

    def _hire(self, left: int) -> None:
        """Starts workers while there is room, but none for whom there is no item."""
        while (
            len(self._hands) < min(self._engine.room(), left)
            and time.monotonic() >= self._next_start
        ):
            worker = self._engine.start(self._make)
            self._hands[worker] = _Hand(worker)

    def _seconds_to_look(self) -> float:
        now = time.monotonic()
        moments = [now + _LOOK]
        if not self._hands:
            moments.append(self._next_start)
        if self._patience.seconds is not None:
            busy = [hand.since for hand in self._hands.values() if hand.tasks]
            moments += [since + self._patience.seconds for since in busy]
        return max(0.01, min(moments) - now)

    def _end_the_late(self, told: Collection[Worker]) -> Generator[tuple[int, Any], None, None]:
        """Kills the workers that have been too long at an item, but for those with news."""
        limit = self._patience.seconds
        if limit is None:
            return
        now = time.monotonic()
        busy = [hand for hand in self._hands.values() if hand.tasks and hand.worker not in told]
        for hand in [hand for hand in busy if now - hand.since > limit]:
            hand.worker.kill()
            yield from self._dismiss(hand, LATE, f"killed after {limit:g} s")

    def _bury(
        self, hand: _Hand, reason: str, *, lost: bool
    ) -> Generator[tuple[int, Any], None, None]:
        """Takes note of a worker's death."""
        if not hand.started and not lost:
            del self._hands[hand.worker]
            self._failed_starts += 1
            # Memory may be full: those who are there go on, and others may find room later.
            doublings = min(self._failed_starts, _START_DOUBLINGS)
            self._next_start = time.monotonic() + 0.5 * 2**doublings
            _LOG.warning("%s ended before it could take an item: %s", hand.worker.where, reason)
            if self._failed_starts >= _START_TRIES and not self._hands:
                raise EngineError(
                    f"worker processes cannot start, the last one: {reason} (see the messages "
                    "above); use --engine=inline, or, in a script, guard what it does with: "
                    "if __name__ == '__main__'"
                )
            return
        self._deaths += not lost
        if self._deaths > 100 + 10 * len(self._hands):
            raise EngineError(
                f"the last {self._deaths} worker processes died without finishing one video (see "
                "the messages above): it is not the videos; check memory, drivers and disks"
            )
        yield from self._dismiss(hand, None if lost else DIED, reason)

    def _dismiss(
        self, hand: _Hand, trouble: str | None, reason: str
    ) -> Generator[tuple[int, Any], None, None]:
        """Gives the worker's tasks to others, or its first one up; `trouble` is that task's."""
        del self._hands[hand.worker]
        if trouble is not None and hand.tasks:
            task = hand.tasks[0]
            task.troubles.append(trouble)
            tries = f"try {len(task.troubles)} of {self._patience.tries}"
            _LOG.warning(
                "%s at %s, %s: %s", hand.worker.where, self._name(task.item), tries, reason
            )
            if len(task.troubles) >= self._patience.tries:
                hand.tasks.popleft()
                yield task.number, self._give_up(task.item, tuple(task.troubles))
        elif hand.started:
            _LOG.warning("%s is lost: %s; its items go to others", hand.worker.where, reason)
        self._todo.extendleft(reversed(hand.tasks))
