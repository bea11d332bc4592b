"""Processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from types import TracebackType
from typing import Any, NoReturn

from tokenization.engines.devices import available_cores
from tokenization.engines.protocol import (
    Done,
    Ended,
    LooksAhead,
    Make,
    News,
    Raised,
    Started,
    WorkerUnfit,
)

_JOIN_SECONDS = 10.0  # that the kernel may take to end a process


class LocalEngine:
    """Processes of this machine, each with one thread for OpenCV, and without a GPU for PyTorch.

    Args:
      processes: None = one a GPU, or one a CPU core that this process may use.
      gpus: names for CUDA_VISIBLE_DEVICES; processes share them in turn. None for those that
        need none.

    Raises:
      ValueError: less than one process.
    """

    def __init__(self, processes: int | None = None, *, gpus: Sequence[str] = ()) -> None:
        if processes is not None and processes < 1:
            raise ValueError(f"processes = {processes} must be at least 1")
        self._processes = processes or len(gpus) or available_cores()
        self._gpus = tuple(gpus)
        self._workers: list[_Process] = []

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.process.join(_JOIN_SECONDS)
        self._workers.clear()

    def room(self) -> int:
        """See `Engine`."""
        return self._processes

    def start(self, make: Make) -> _Process:
        """See `Engine`."""
        gpu = None
        if self._gpus:  # the one that fewest processes have
            taken = [worker.gpu for worker in self._workers if not worker.killed]
            gpu = min(self._gpus, key=taken.count)
        worker = _Process(make, gpu)
        self._workers.append(worker)
        return worker

    def wait(self, seconds: float) -> list[News]:
        """See `Engine`."""
        self._workers = [worker for worker in self._workers if not worker.killed]
        by_connection = {worker.connection: worker for worker in self._workers}
        ready = connection.wait(list(by_connection), seconds)
        news = [by_connection[one].news() for one in ready]  # type: ignore[index]
        ended = [told.worker for told in news if isinstance(told, Ended)]
        self._workers = [worker for worker in self._workers if worker not in ended]
        return news


class _Process:
    """A process and our end of the pipe to it."""

    def __init__(self, make: Make, gpu: str | None) -> None:
        # spawn: this process may have threads (OpenCV, JAX), which do not survive a fork.
        context = multiprocessing.get_context("spawn")
        self.gpu = gpu
        self.killed = False
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, gpu), daemon=True)
        with _sigint_blocked():
            self.process.start()
        theirs.close()  # so that ours tells when the process has ended

    @property
    def where(self) -> str:
        return f"process {self.process.pid}"

    def give(self, item: Any) -> None:
        with contextlib.suppress(OSError):  # it has died, of which `news` tells
            self.connection.send(item)

    def kill(self) -> None:
        self.killed = True
        self.process.kill()
        self.connection.close()

    def news(self) -> News:
        try:
            kind, value = self.connection.recv()
        except (EOFError, OSError):
            self.connection.close()
            self.process.join(_JOIN_SECONDS)
            return Ended(self, _describe_end(self.process.exitcode))
        if kind is Ended:
            self.connection.close()
            self.process.join(_JOIN_SECONDS)
        return Started(self) if kind is Started else kind(self, value)


def _describe_end(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
    return f"exit code {code}"


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


def use_one_thread() -> None:
    """Leaves the other cores to the other workers."""
    import cv2

    cv2.setNumThreads(1)


def networks_use_one_thread() -> None:
    """The same for PyTorch, whether it is imported later or has been by the caller's own modules.

    OMP_NUM_THREADS decides where it is set, as Ray does for its actors.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = "1"
        if (torch := sys.modules.get("torch")) is not None:
            torch.set_num_threads(1)


def _serve(pipe: connection.Connection, make: Make, gpu: str | None) -> None:
    """What a worker process does."""
    # Ctrl-C reaches the whole process group; the parent alone decides.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if gpu is None:
        networks_use_one_thread()
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    inbox = _Inbox()
    threading.Thread(target=_read, args=(pipe, inbox), daemon=True).start()
    use_one_thread()
    try:
        function = make()
        if isinstance(function, LooksAhead):
            inbox.ahead = function.ahead
        answer: tuple[type, Any] = (Started, None)
    except WorkerUnfit as error:
        _leave(pipe, error)
    except Exception as error:
        function = None
        answer = (Raised, _portable(error))
    pipe.send(answer)
    while function is not None:
        try:
            answer = (Done, function(inbox.get()))
        except WorkerUnfit as error:
            _leave(pipe, error)
        except Exception as error:
            answer = (Raised, _portable(error))
        pipe.send(answer)


def _leave(pipe: connection.Connection, error: WorkerUnfit) -> NoReturn:
    """Ends the process at once: what has failed in it may not be able to end in order."""
    pipe.send((Ended, str(error)))
    os._exit(1)


class _Inbox:
    """Items that have come; there are few, as the crew gives the next one when one is done."""

    def __init__(self) -> None:
        self._items = queue.SimpleQueue[Any]()
        self.ahead: Callable[[Any], None] | None = None

    def put(self, item: Any) -> None:
        if self.ahead is not None:
            self.ahead(item)
        self._items.put(item)

    def get(self) -> Any:
        return self._items.get()


def _read(pipe: connection.Connection, inbox: _Inbox) -> None:
    """Always reads, so that the parent never waits to send; ends the process with the parent."""
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        pass
    except BaseException:  # an item that cannot be read here
        traceback.print_exc()
    os._exit(1)


def _portable(error: Exception) -> Exception:
    """The error itself if it survives a pipe, else one that tells of it."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
