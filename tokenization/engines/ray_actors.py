"""Actors on a Ray cluster: one a GPU or one a CPU core, on any number of machines.

Plain actors, not Ray Data: that would try a video whose actor died again without end, knows no
time limit for one item, and would have to be told which item an actor died of.
"""

from __future__ import annotations

import collections
import os
import re
import socket
import sys
import threading
import time
from types import TracebackType
from typing import Any

from tokenization.engines.devices import available_cores
from tokenization.engines.local import use_one_thread
from tokenization.engines.protocol import (
    Done,
    Ended,
    EngineError,
    LooksAhead,
    Make,
    News,
    Raised,
    Started,
    WorkerUnfit,
)

_ROOM_SECONDS = 5.0  # that an answer of the cluster about its size is used
_REACH_SECONDS = 10.0  # that a cluster's address is asked; Ray itself would wait for minutes
_AHEAD = "ahead"
# host:port and ray://host[:port]; other addresses, as `auto`, are Ray's to understand.
_ADDRESS = re.compile(r"(?P<client>ray://)?(?P<host>\[[^]]+\]|[^\s:/]+)(:(?P<port>\d+))?")
_CLIENT_PORT = 10001


class RayEngine:
    """Actors on a Ray cluster.

    Those that are lost with their machine are started again wherever there is room. With `workers`,
    actors that find no room wait for it, which tells an autoscaling cluster to grow.

    Args:
      address: of the cluster, `auto` = the one that this machine belongs to; None = what
        RAY_ADDRESS says, or a cluster of this machine alone, for as long as it is needed.
      workers: actors; None = as many as the cluster has room for, also while it grows.
      gpus: of each actor (a part of one lets actors share it); None = 1 if `wants_gpu` and the
        cluster has any, else 0.
      wants_gpu: whether the work profits from one.

    Raises:
      ValueError: less than one worker, or less than no GPU.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        workers: int | None = None,
        gpus: float | None = None,
        wants_gpu: bool = False,
    ) -> None:
        if (workers is not None and workers < 1) or (gpus is not None and gpus < 0):
            raise ValueError(f"workers={workers} must be at least 1, gpus={gpus} at least 0")
        self._address = address
        self._limit = workers
        self._gpus = gpus
        self._wants_gpu = wants_gpu
        self._workers: list[_Actor] = []
        self._room = (-_ROOM_SECONDS, 0)  # when it was asked for, and the answer
        self._started_cluster = False

    def __enter__(self) -> RayEngine:
        address = self._address or os.environ.get("RAY_ADDRESS") or "local"
        if address == "local" and "ray" not in sys.modules:
            # Ray's own choice for a cluster of its own, of which it warns unless it is said; it
            # is read once, on import.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
        ray = _import_ray()
        if not ray.is_initialized():
            self._connect(ray, address)
        self._ray = ray
        if self._gpus is None:
            has_gpus = ray.cluster_resources().get("GPU", 0) > 0
            self._gpus = 1.0 if self._wants_gpu and has_gpus else 0.0
        self._actor = ray.remote(
            num_cpus=1,
            num_gpus=self._gpus,
            max_restarts=0,  # the crew decides who is started again, and with what
            max_task_retries=0,
            scheduling_strategy="SPREAD",
            concurrency_groups={_AHEAD: 1},  # a thread beside that of the work
        )(_Remote)
        return self

    def _connect(self, ray: Any, address: str) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own: dict[str, Any] = {}
        if address == "local":
            own = {"num_cpus": self._limit or available_cores(), "include_dashboard": False}
        _reach(address)
        try:
            ray.init(address, logging_level="warning", **own)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise _no_cluster(address, error) from error
        self._started_cluster = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        if self._started_cluster:
            self._ray.shutdown()

    def room(self) -> int:
        """See `Engine`."""
        if self._limit is not None:
            return self._limit
        asked, room = self._room
        if time.monotonic() - asked >= _ROOM_SECONDS:
            total = self._ray.cluster_resources()
            room = int(total.get("CPU", 0))
            if self._gpus:
                room = min(room, int(total.get("GPU", 0) / self._gpus))
            self._room = time.monotonic(), room
        return max(1, room)

    def start(self, make: Make) -> _Actor:
        """See `Engine`."""
        worker = _Actor(self._ray, self._actor.remote(), make)
        self._workers.append(worker)
        return worker

    def wait(self, seconds: float) -> list[News]:
        """See `Engine`."""
        self._workers = [worker for worker in self._workers if not worker.ended]
        waiting = {worker.calls[0]: worker for worker in self._workers if worker.calls}
        if not waiting:
            time.sleep(seconds)
            return []
        ready, _ = self._ray.wait(list(waiting), num_returns=1, timeout=seconds)
        if ready:
            ready, _ = self._ray.wait(list(waiting), num_returns=len(waiting), timeout=0)
        return [waiting[call].news() for call in ready]


class _Remote:
    """What runs in a worker process of Ray. Items are numbered in the order in which they come."""

    def __init__(self) -> None:
        self._begun = -1
        self._turn = threading.Lock()

    def start(self, make: Make) -> tuple[str, int, str, bool]:
        """Makes the function; returns address, process and node, and whether it looks ahead."""
        import ray

        use_one_thread()
        self._function = make()
        context = ray.get_runtime_context()
        address, node = ray.util.get_node_ip_address(), context.get_node_id()
        return address, os.getpid(), node, isinstance(self._function, LooksAhead)

    def ahead(self, number: int, item: Any) -> None:
        """Begins with an item that waits; runs beside `work`, and may come too late."""
        with self._turn:
            if number > self._begun:
                self._function.ahead(item)

    def work(self, number: int, item: Any) -> Any:
        with self._turn:
            self._begun = number
        return self._function(item)


class _Actor:
    """An actor, and its calls that have not been answered."""

    def __init__(self, ray: Any, handle: Any, make: Make) -> None:
        self._ray = ray
        self._handle = handle
        self._node = ""
        self._looks_ahead = False
        self._given = 0
        self.where = "an actor that has not started"
        self.ended = False
        self.calls = collections.deque[Any]([handle.start.remote(make)])

    def give(self, item: Any) -> None:
        if self._looks_ahead:
            self._handle.ahead.options(concurrency_group=_AHEAD).remote(self._given, item)
        self.calls.append(self._handle.work.remote(self._given, item))
        self._given += 1

    def kill(self) -> None:
        self.ended = True
        self._ray.kill(self._handle)

    def news(self) -> News:
        errors = self._ray.exceptions
        try:
            result = self._ray.get(self.calls.popleft())
        except errors.RayTaskError as error:
            cause = error.cause
            if isinstance(cause, WorkerUnfit):
                self.kill()
                return Ended(self, str(cause))
            return Raised(self, cause if isinstance(cause, Exception) else error)
        except errors.RayError as error:  # the actor has died, or its result with its machine
            self.ended = True
            self._ray.kill(self._handle)
            reason = str(error).strip().splitlines()[0]
            return Ended(self, reason, lost=self._lost(error))
        if not self._node:
            address, process, self._node, self._looks_ahead = result
            self.where = f"process {process} on {address}"
            return Started(self)
        return Done(self, result)

    def _lost(self, error: Exception) -> bool:
        """Whether the machine went away: a spot instance, a crash, a scale-down."""
        errors = self._ray.exceptions
        away = (errors.NodeDiedError, errors.ObjectLostError, errors.ActorUnavailableError)
        if isinstance(error, away) or getattr(error, "preempted", False):
            return True
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return bool(self._node) and self._node not in alive


def _no_cluster(address: str, reason: object) -> EngineError:
    return EngineError(
        f"no Ray cluster at {address!r} ({reason}); start one with launch/extract_ray.sh "
        "or `ray start --head`, or leave --address out to use this machine alone"
    )


def _reach(address: str) -> None:
    """Raises EngineError if nobody answers at an address; one that is starting is waited for."""
    found = _ADDRESS.fullmatch(address)
    if not found or not (found["client"] or found["port"]):
        return
    host, port = found["host"].strip("[]"), int(found["port"] or _CLIENT_PORT)
    until = time.monotonic() + _REACH_SECONDS
    while True:
        left = until - time.monotonic()
        try:
            socket.create_connection((host, port), timeout=max(0.1, left)).close()
        except socket.gaierror as error:
            raise _no_cluster(address, f"{host}: {error.strerror}") from error
        except (OSError, OverflowError) as error:
            if left <= 1 or isinstance(error, OverflowError):
                raise _no_cluster(address, error) from error
            time.sleep(1)
        else:
            return


def _import_ray() -> Any:
    try:
        import ray
        import ray.exceptions
        import ray.util
    except ImportError as error:
        raise EngineError(
            f"--engine=ray needs Ray, which is not installed ({error}): `make ray`, or "
            "pip install --constraint constraints/py311-cpu.txt -e '.[ray]'"
        ) from error
    return ray
