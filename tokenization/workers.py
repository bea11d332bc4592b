"""Runs a function over items in processes: results in order, and a dying process is survived."""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
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

    Closed or interrupted before its end, it kills the processes: functions that write files
    must leave them whole at any time.

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
    ended = False
    try:
        while True:
            for item in source:
                queue.append((item, _submit(pool, item)))
                if len(queue) >= workers * _AHEAD:
                    break
            if not queue:
                ended = True
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
        _end(pool, kill=not ended)


def _pool(make: Callable[[], Callable[[Any], Any]], workers: int) -> ProcessPoolExecutor:
    # spawn: the parent may have threads (OpenCV, JAX), which do not survive a fork.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(make,))


def _end(pool: ProcessPoolExecutor, *, kill: bool) -> None:
    if kill:
        # Python 3.14 has pool.kill_workers().
        for process in list((pool._processes or {}).values()):
            process.kill()
        # The pool would wait for the rest of a result that a process was sending.
        if pool._result_queue is not None:
            pool._result_queue._writer.close()
    pool.shutdown(cancel_futures=True)


def _start(make: Callable[[], Callable[[Any], Any]]) -> None:
    global _worker
    # Ctrl-C reaches the whole process group; the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)
    try:
        _worker = make()
    except Exception as error:  # raised here, it would only be known that the process ended
        _worker = error


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes that start meanwhile ignore Ctrl-C from their first instruction on."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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
        with _sigint_blocked():
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
    ended = False
    try:
        for item in items:
            try:
                result = _submit(pool, item).result()
            except BrokenProcessPool:
                result = died(item)
                pool.shutdown()
                pool = _started_pool(make)
            yield result
        ended = True
    finally:
        _end(pool, kill=not ended)


def _started_pool(make: Callable[[], Callable[[Any], Any]]) -> ProcessPoolExecutor:
    """A pool of one process that is known to have started."""
    pool = _pool(make, 1)
    try:
        with _sigint_blocked():
            started = pool.submit(_check_start)
        started.result()
    except BrokenProcessPool as error:
        pool.shutdown()
        raise StartError(
            "worker processes cannot start (see the messages above); use one process, or, "
            "in a script, guard what it does with: if __name__ == '__main__'"
        ) from error
    except BaseException:
        _end(pool, kill=True)
        raise
    return pool
