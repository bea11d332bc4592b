"""Which of how many processes this one is, from the environment, and how they find each other.

One process drives all accelerators of its host, or several share them. `start` must come before
anything that asks JAX for devices; a process that is alone needs no start.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import socket
from collections.abc import Mapping, MutableMapping

from trajvit_jax.pod.roll_call import answer, call

_LOG = logging.getLogger(__name__)

_COORDINATOR = "TRAJVIT_COORDINATOR"
_PROCESSES = "TRAJVIT_PROCESSES"
_PROCESS = "TRAJVIT_PROCESS"
_JOB_INDEX = "JOB_COMPLETION_INDEX"  # Kubernetes gives it to the pods of an indexed Job

_PROXIES = ("grpc_proxy", "https_proxy", "http_proxy")  # that gRPC reads
_NO_PROXY = "no_grpc_proxy"  # hosts that it reaches directly, in place of those of "no_proxy"

START_TIMEOUT = 600.0  # seconds: containers of one job may start minutes apart
_HEARTBEAT_TIMEOUT = 100  # seconds until a silent process counts as dead
_A_WEEK = 7 * 24 * 3600 * 1000  # milliseconds
_SHUTDOWN_TIMEOUT = 60  # seconds that one which ends waits for the others to end


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The processes of one run.

    Attributes:
      coordinator: 'host:port' of process 0, reachable from every process.
      processes: how many there are.
      process: which this one is, from 0.

    Raises:
      ValueError: a number out of range, or a coordinator that is no 'host:port'.
    """

    coordinator: str
    processes: int
    process: int

    def __post_init__(self) -> None:
        if self.processes < 1 or not 0 <= self.process < self.processes:
            raise ValueError(
                f"process {self.process} of {self.processes}: processes are numbered from 0 "
                f"to {_PROCESSES} - 1"
            )
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 2**16:
            raise ValueError(
                f"{_COORDINATOR}={self.coordinator!r} must be host:port of process 0, such as "
                "node001:12355"
            )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the coordinator."""
        host, _, port = self.coordinator.rpartition(":")
        return host.strip("[]"), int(port)


def from_environment(env: Mapping[str, str]) -> Cluster | None:
    """Reads the processes of this run; None where this process is the only one.

    In this order:
      1. TRAJVIT_COORDINATOR, TRAJVIT_PROCESSES and TRAJVIT_PROCESS, as `launch/run_pod.sh` sets
         them. In the pods of an indexed Kubernetes Job, JOB_COMPLETION_INDEX is the last.
      2. SLURM, within a step (`srun`): its tasks; the first host of the step coordinates, at a
         port that follows from the job's number.

    Args:
      env: such as `os.environ`.

    Raises:
      ValueError: variables that are incomplete or out of range; the message names them.
    """
    if any(name in env for name in (_COORDINATOR, _PROCESSES, _PROCESS)):
        return _from_ours(env)
    if "SLURM_STEP_NODELIST" in env:
        return _from_slurm(env)
    if _JOB_INDEX in env:
        raise ValueError(
            f"this is pod {env[_JOB_INDEX]} of an indexed Kubernetes Job, but {_PROCESSES} is not "
            f"set: set it to the Job's completions, and {_COORDINATOR} to host:port of pod 0, "
            f"as in launch/kubernetes.yaml ({_PROCESSES}=1 for a pod that trains alone)"
        )
    return None


def _from_ours(env: Mapping[str, str]) -> Cluster | None:
    processes = _number(env, _PROCESSES)
    if processes == 1:
        return None
    process = _number(env, _PROCESS if _PROCESS in env or _JOB_INDEX not in env else _JOB_INDEX)
    if not env.get(_COORDINATOR):
        raise ValueError(f"{_PROCESSES}={processes} needs {_COORDINATOR}, host:port of process 0")
    return Cluster(env[_COORDINATOR], processes, process)


def _from_slurm(env: Mapping[str, str]) -> Cluster | None:
    processes = _number(
        env, "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in env else "SLURM_NTASKS"
    )
    if processes == 1:
        return None
    hosts = expand_hosts(env["SLURM_STEP_NODELIST"])
    # Jobs that share a host have other numbers, mostly; 61440..65535 is left to programs.
    port = 61440 + _number(env, "SLURM_JOB_ID") % 4096
    return Cluster(f"{hosts[0]}:{port}", processes, _number(env, "SLURM_PROCID"))


def _number(env: Mapping[str, str], name: str) -> int:
    text = env.get(name, "")
    if not text.isdigit():
        found = f"is {text!r}" if name in env else "is not set"
        raise ValueError(f"{name} must be a whole number, but {found}")
    return int(text)


def expand_hosts(text: str) -> list[str]:
    """Host names of SLURM's short form: `gpu[008-010,12],login` -> gpu008, gpu009, gpu010, ...

    Raises:
      ValueError: text that is no such list.
    """
    entries = re.findall(r"(?:[^,\[\]]|\[[^\[\]]*\])+", text)
    if not entries or ",".join(entries) != text:
        raise ValueError(f"{text!r} is no list of hosts such as gpu[001-004],gpu007")
    return [host for entry in entries for host in _expand(entry, text)]


def _expand(entry: str, text: str) -> list[str]:
    head, bracket, rest = entry.partition("[")
    if not bracket:
        return [entry]
    ranges, _, tail = rest.partition("]")
    numbers = []
    for part in ranges.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None:
            raise ValueError(f"{part!r} in the list of hosts {text!r} is no range such as 001-004")
        first, last = match[1], match[2] or match[1]
        numbers += [str(i).zfill(len(first)) for i in range(int(first), int(last) + 1)]
    return [head + number + end for number in numbers for end in _expand(tail, text)]


def bypass_proxies(host: str, env: MutableMapping[str, str]) -> None:
    """Lets gRPC, through which JAX's processes find each other, reach a host without a proxy.

    Through one the first connection hangs. Other programs' "no_proxy" stays as it is.

    Args:
      host: of the coordinator.
      env: such as `os.environ`; where it names no proxy, nothing changes.
    """
    if not any(name.lower() in _PROXIES for name in env):
        return
    direct = env.get(_NO_PROXY, env.get("no_proxy", ""))
    env[_NO_PROXY] = f"{direct},{host}" if direct else host


def start(cluster: Cluster | None, *, timeout: float = START_TIMEOUT) -> None:
    """Joins the processes of a run: afterwards JAX sees the devices of all of them.

    First every process reports to process 0, so that one that is missing, or was started with
    other numbers, is named: JAX itself ends the process without saying which.

    Args:
      cluster: from `from_environment`; None does nothing.
      timeout: seconds until all must have come.

    Raises:
      ConnectionError: the coordinator cannot be reached, its port is taken, or processes did not
        come; the message names them.
      ValueError: processes that were started with other numbers, or one number twice on a machine.
      RuntimeError: JAX has looked for devices before.
    """
    if cluster is None:
        return
    import jax

    if cluster.process == 0:
        answer(cluster.address[1], cluster.processes, timeout=timeout)
    else:
        call(cluster.address, cluster.process, cluster.processes, timeout=timeout)
    bypass_proxies(cluster.address[0], os.environ)
    # SIGTERM is ours: JAX's own notice of a preemption would take the handler away.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        cluster.coordinator,
        cluster.processes,
        cluster.process,
        # Its devices are all of the host, or those that launch/run_host.sh names in
        # JAX_LOCAL_DEVICE_IDS; detected under SLURM it would be one a process.
        cluster_detection_method="deactivate",
        initialization_timeout=max(1, round(timeout)),
        heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
    )
    _LOG.info(
        "process %d of %d on %s: %d of %d devices (%s)",
        cluster.process,
        cluster.processes,
        socket.gethostname(),
        jax.local_device_count(),
        jax.device_count(),
        jax.devices()[0].device_kind,
    )


def wait_for_all(what: str) -> None:
    """Returns once all processes have come here, however long one takes over `what`.

    The devices do not wait: a collective that one does not enter for long is taken for a failure.
    One that ends meanwhile ends all, as anywhere.
    """
    from jax._src import distributed  # public barriers are collectives of the devices

    if distributed.global_state.client is not None:
        distributed.global_state.client.wait_at_barrier(f"trajvit {what}", _A_WEEK)


def stop(cluster: Cluster | None) -> None:
    """Leaves the run together with all others: call it at the end, also after a preemption.

    Process 0 must not end first, or JAX ends the others. After an error of this process alone,
    leave with `os._exit` instead: on the way out of the interpreter JAX waits a minute for the
    others, in vain, and ends the process by a signal, so that its exit code is lost.
    """
    if cluster is not None:
        import jax

        jax.distributed.shutdown()
