"""Runs a function over items in processes: results in order, and a dying process is survived."""

from __future__ import annotations

import collections
import multiprocessing
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 3  # items a process that are handed out before the first one is done

# Set in each worker process, by its initializer.
_worker: Callable[[Any], Any] | None = None


def ordered_map(
    make: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    *,
    workers: int,
    died: Callable[[Item], Result],
) -> Generator[Result, None, None]:
    """Yields the result of every item, in order.

    Args:
      make: builds the function, once in each process; picklable, as are items and results.
      items: what to work on; read only a little ahead.
      workers: processes; with one, all happens in this process.
      died: the result of an item whose process died (out of memory, a crash in a library).
    """
    if workers <= 1:
        yield from map(make(), items)
        return
    queue = collections.deque[tuple[Item, Future[Result]]]()
    source = iter(items)
    pool = _pool(make, workers)
    try:
        while True:
            for item in source:
                queue.append((item, pool.submit(_call, item)))
                if len(queue) >= workers * _AHEAD:
                    break
            if not queue:
                return
            item, future = queue[0]
            try:
                result = future.result()
            except BrokenProcessPool:
                # Any of the items in flight may have done it: they go through one by one.
                pool.shutdown()
                suspects = [item for item, _ in queue]
                queue.clear()
                yield from _one_by_one(make, suspects, died)
                pool = _pool(make, workers)
                continue
            queue.popleft()
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(make: Callable[[], Callable[[Any], Any]], workers: int) -> ProcessPoolExecutor:
    # spawn: the parent may have threads (OpenCV, JAX), which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make,))


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _worker
    # Ctrl-C reaches the whole process group; the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    cv2.setNumThreads(1)
    _worker = make()


def _call(item: Any) -> Any:
    assert _worker is not None
    return _worker(item)


def _one_by_one(
    make: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    died: Callable[[Item], Result],
) -> Generator[Result, None, None]:
    pool = _pool(make, 1)
    try:
        for item in items:
            try:
                yield pool.submit(_call, item).result()
            except BrokenProcessPool:
                yield died(item)
                pool.shutdown()
                pool = _pool(make, 1)
    finally:
        pool.shutdown()
