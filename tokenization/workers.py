"""Runs a function over items in processes: results in order, and a dying process is survived."""

from __future__ import annotations

import collections
import multiprocessing
import os
import signal
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import cv2

Item = TypeVar("Item")
Result = TypeVar("Result")

_AHEAD = 3  # items a process that are handed out before the first one is done

# Set in each worker process, by its initializer: the function, or why there is none.
_worker: Callable[[Any], Any] | Exception | None = None


class StartError(RuntimeError):
    """Processes end before they can take an item."""


def available_cores() -> int:
    """CPU cores that this process may use: fewer than there are, in a container or a job."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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

    Raises:
      StartError: processes end before they can take an item; no item is blamed for that.
      Exception: what `make`, or the function for an item, raises.
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
                queue.append((item, _submit(pool, item)))
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
    try:
        _worker = make()
    except Exception as error:  # raised here, it would only be known that the process ended
        _worker = error


def _started() -> Callable[[Any], Any]:
    if isinstance(_worker, Exception):
        raise _worker
    assert _worker is not None
    return _worker


def _call(item: Any) -> Any:
    return _started()(item)


def _check_start() -> None:
    _started()


def _submit(pool: ProcessPoolExecutor, item: Any) -> Future[Any]:
    """Like `pool.submit`, but a pool that broke meanwhile shows in the future alone."""
    try:
        return pool.submit(_call, item)
    except BrokenProcessPool as error:
        future = Future[Any]()
        future.set_exception(error)
        return future


def _one_by_one(
    make: Callable[[], Callable[[Item], Result]],
    items: Iterable[Item],
    died: Callable[[Item], Result],
) -> Generator[Result, None, None]:
    pool = _started_pool(make)
    try:
        for item in items:
            try:
                result = _submit(pool, item).result()
            except BrokenProcessPool:
                result = died(item)
                pool.shutdown()
                pool = _started_pool(make)
            yield result
    finally:
        pool.shutdown()


def _started_pool(make: Callable[[], Callable[[Any], Any]]) -> ProcessPoolExecutor:
    """A pool of one process that is known to have started."""
    pool = _pool(make, 1)
    try:
        pool.submit(_check_start).result()
    except BrokenProcessPool as error:
        pool.shutdown()
        raise StartError(
            "worker processes cannot start (see the messages above); use one process, or, "
            "in a script, guard what it does with: if __name__ == '__main__'"
        ) from error
    except BaseException:
        pool.shutdown()
        raise
    return pool
