"""Process 0 waits until all others have reported, and every one of them learns the outcome.

Each of the others sends one line of JSON to the coordinator's port and gets one back. A line that
is no report (of a port scanner, say) is dropped. A process that is lost with its host closes
nothing: whoever reports its number from another host takes its place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import select
import socket
import time
from pathlib import Path

_LOG = logging.getLogger(__name__)

_LINE = 4096  # bytes that a report has at most
_NOTICE = 30.0  # seconds between lines on who is waited for
_RETRY = 0.2  # seconds between two calls
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# A host that has not answered three times in 10 s is lost.
_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


@dataclasses.dataclass(frozen=True)
class _Report:
    """A process that came, and its open connection."""

    process: int
    processes: int
    host: str
    machine: str
    pid: int
    peer: socket.socket

    def tell(self, error: str = "", *, wrong: bool = False) -> None:
        """The outcome; `wrong`: another try would not help."""
        outcome = {"error": error, "wrong": wrong}
        with contextlib.suppress(OSError):  # it ends with an error of its own
            self.peer.sendall(json.dumps(outcome).encode() + b"\n")

    @property
    def gone(self) -> bool:
        """Whether that process has ended: it says nothing more until it is answered."""
        return bool(select.select([self.peer], [], [], 0)[0])

    def is_beside(self, other: _Report) -> bool:
        """Whether both are processes of one machine: there, one that is lost is `gone`."""
        return self.machine == other.machine and self.pid != other.pid


def answer(port: int, processes: int, *, timeout: float) -> None:
    """Process 0: returns once processes 1..n-1 have reported.

    Args:
      port: to listen on; free again afterwards.
      processes: all of them, this one too.
      timeout: seconds until they must have come.

    Raises:
      ConnectionError: the port is taken, or some did not come in time.
      ValueError: a process that expects another number of processes, or a number twice on one
        machine.
    """
    came: dict[int, _Report] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(port))
        try:
            _gather(server, stack, came, processes, timeout)
        except (ConnectionError, ValueError) as error:
            for report in came.values():
                report.tell(str(error), wrong=isinstance(error, ValueError))
            raise
        server.close()  # before the others go on: the port is JAX's next
        for report in came.values():
            report.tell()


def _gather(
    server: socket.socket,
    stack: contextlib.ExitStack,
    came: dict[int, _Report],
    processes: int,
    timeout: float,
) -> None:
    deadline = time.monotonic() + timeout
    notice = time.monotonic() + _NOTICE
    while missing := [i for i in range(1, processes) if i not in came or came[i].gone]:
        now = time.monotonic()
        if now >= deadline:
            raise ConnectionError(
                f"process {_listed(missing)} of {processes} did not report to process 0 on "
                f"{socket.gethostname()}:{server.getsockname()[1]} within {timeout:g} s; the "
                "logs of their hosts may say why"
            )
        if now >= notice:
            _LOG.info("waiting for process %s of %d", _listed(missing), processes)
            notice = now + _NOTICE
        if not select.select([server], [], [], min(1.0, deadline - now))[0]:
            continue
        peer, _ = server.accept()
        report = _read(stack.enter_context(peer))
        if report is None:
            continue
        before = came.get(report.process)
        if reason := _contradiction(report, before, processes):
            report.tell(reason, wrong=True)
            raise ValueError(reason)
        if before is not None and not before.gone:
            _replace(before, report)
        came[report.process] = report


def _replace(before: _Report, report: _Report) -> None:
    reason = (
        f"process {report.process} on {before.host} was replaced by one on {report.host}; if both "
        "run, give each process its own TRAJVIT_PROCESS"
    )
    _LOG.warning(reason)
    before.tell(reason)


def _contradiction(report: _Report, before: _Report | None, processes: int) -> str:
    who = f"process {report.process} on {report.host}"
    if report.processes != processes:
        return (
            f"{who} was started as one of {report.processes} processes, process 0 as one of "
            f"{processes}: give all of them the same TRAJVIT_PROCESSES"
        )
    if report.process == 0 or (before and not before.gone and report.is_beside(before)):
        other = before.host if before else socket.gethostname()
        return f"{who} runs on {other} already: give each process its own TRAJVIT_PROCESS"
    return ""


def call(address: tuple[str, int], process: int, processes: int, *, timeout: float) -> None:
    """Any other process: reports to process 0 and returns once all have.

    Args:
      address: host and port of process 0.
      process: the number of this one.
      processes: all of them.
      timeout: seconds until all must have come.

    Raises:
      ConnectionError: process 0 cannot be reached in time, gave up waiting for others, or took
        another process in place of this one.
      ValueError: the numbers of the processes contradict each other.
    """
    deadline = time.monotonic() + timeout
    report = {
        "process": process,
        "processes": processes,
        "host": socket.gethostname(),
        "machine": machine(),
        "pid": os.getpid(),
    }
    reason: object = "no answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=min(left, 10)) as peer:
                peer.settimeout(left)
                peer.sendall(json.dumps(report).encode() + b"\n")
                outcome = json.loads(_line(peer))
        except (OSError, ValueError) as error:  # nobody there yet, or somebody else
            reason = error
            time.sleep(min(_RETRY, left))
            continue
        if outcome["error"]:
            raise (ValueError if outcome["wrong"] else ConnectionError)(outcome["error"])
        return
    host, port = address
    raise ConnectionError(
        f"process {process} of {processes} could not reach process 0 at {host}:{port} within "
        f"{timeout:g} s ({reason}); is it running, and is the port open between the hosts?"
    )


def machine() -> str:
    """Of this host: pods that replace one another have one name, on different machines."""
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return f"{socket.gethostname()} {boot}"


def _listen(port: int) -> socket.socket:
    try:
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise ConnectionError(
            f"process 0 cannot listen on port {port} of {socket.gethostname()} ({error}); end "
            "what holds it, or choose another port in TRAJVIT_COORDINATOR"
        ) from error


def _read(peer: socket.socket) -> _Report | None:
    """One report, or None for anything else."""
    peer.settimeout(5)
    try:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _ALIVE.items():
            if hasattr(socket, name):  # not on every system
                peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        said = json.loads(_line(peer))
        process, processes, pid = (int(said[name]) for name in ("process", "processes", "pid"))
        return _Report(process, processes, str(said["host"]), str(said["machine"]), pid, peer)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _line(peer: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < _LINE:
        more = peer.recv(_LINE)
        if not more:
            break
        line += more
    return line


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:16])
    return f"{shown} and {len(numbers) - 16} more" if len(numbers) > 16 else shown
