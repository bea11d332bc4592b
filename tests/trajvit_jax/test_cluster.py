"""Processes of a run: what the environment says, and what is said when one is missing."""

from __future__ import annotations

import json
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trajvit_jax.pod.cluster import (
    Cluster,
    bypass_proxies,
    expand_hosts,
    from_environment,
    start,
)
from trajvit_jax.pod.roll_call import answer, call, machine

OURS = {"TRAJVIT_COORDINATOR": "node1:12355", "TRAJVIT_PROCESSES": "4", "TRAJVIT_PROCESS": "2"}
SLURM = {
    "SLURM_JOB_ID": "4097",
    "SLURM_JOB_NODELIST": "login,gpu[007-010]",
    "SLURM_STEP_NODELIST": "gpu[007-010]",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "3",
}
HERE = "127.0.0.1"
POD = {"JOB_COMPLETION_INDEX": "1", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@pytest.mark.parametrize(
    ("env", "cluster"),
    [
        ({}, None),
        (OURS, Cluster("node1:12355", 4, 2)),
        (OURS | {"TRAJVIT_COORDINATOR": "[::1]:80"}, Cluster("[::1]:80", 4, 2)),
        (OURS | SLURM, Cluster("node1:12355", 4, 2)),
        (OURS | {"TRAJVIT_PROCESSES": "1"}, None),
        (SLURM, Cluster("gpu007:61441", 4, 3)),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_JOB_ID": "4097", "SLURM_PROCID": "0", "SLURM_JOB_NODELIST": "a,b"}, None),
        (POD | {"TRAJVIT_PROCESSES": "1"}, None),
        (POD | {"TRAJVIT_PROCESSES": "2", "TRAJVIT_COORDINATOR": "a:1"}, Cluster("a:1", 2, 1)),
    ],
)
def test_the_environment_says_which_process_this_is(env, cluster):
    assert from_environment(env) == cluster


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (POD, "pod 1 of an indexed .* TRAJVIT_PROCESSES is not set.*launch/kubernetes.yaml"),
        ({"TRAJVIT_COORDINATOR": "a:1"}, "TRAJVIT_PROCESSES must be a whole number, but is not"),
        (OURS | {"TRAJVIT_PROCESSES": "four"}, "TRAJVIT_PROCESSES .* but is 'four'"),
        (OURS | {"TRAJVIT_PROCESS": "4"}, "process 4 of 4: .* numbered from 0"),
        (OURS | {"TRAJVIT_COORDINATOR": "node1"}, "TRAJVIT_COORDINATOR='node1' must be host:port"),
        (OURS | {"TRAJVIT_COORDINATOR": "node1:99999"}, "must be host:port"),
        (OURS | {"TRAJVIT_COORDINATOR": ""}, "TRAJVIT_PROCESSES=4 needs TRAJVIT_COORDINATOR"),
        (SLURM | {"SLURM_STEP_NODELIST": "gpu[1-"}, "is no list of hosts"),
    ],
)
def test_an_incomplete_environment_is_named(env, message):
    with pytest.raises(ValueError, match=message):
        from_environment(env)


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("node1", ["node1"]),
        ("a,b-2.site.org", ["a", "b-2.site.org"]),
        ("gpu[008-010,12],x", ["gpu008", "gpu009", "gpu010", "gpu12", "x"]),
        ("r[1-2]n[1-2]-ib", ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"]),
    ],
)
def test_hosts_in_slurm_s_short_form(text, hosts):
    assert expand_hosts(text) == hosts


@given(first=st.integers(0, 998), count=st.integers(1, 20), width=st.integers(1, 5))
def test_a_range_of_hosts_keeps_its_width(first, count, width):
    names = [f"n{i:0{width}d}" for i in range(first, first + count)]
    assert expand_hosts(f"n[{names[0][1:]}-{names[-1][1:]}]") == names


@pytest.mark.parametrize("text", ["", "a,", "a[1", "a]1[", "a[x]", "a[]", "a,,b"])
def test_what_is_no_list_of_hosts_is_refused(text):
    with pytest.raises(ValueError, match="hosts"):
        expand_hosts(text)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(8) as pool:
        yield pool


def test_all_processes_learn_that_all_have_come(port, threads):
    calls = [threads.submit(call, (HERE, port), 2, 4, timeout=20.0)]  # before process 0 listens
    calls += [threads.submit(call, (HERE, port), process, 4, timeout=20.0) for process in (1, 3)]
    answer(port, 4, timeout=20.0)
    for future in calls:
        future.result()
    socket.create_server(("", port)).close()  # the port is free again


def test_a_missing_process_is_named_to_all(port, threads):
    came = threads.submit(call, (HERE, port), 2, 4, timeout=20.0)
    with pytest.raises(ConnectionError, match="process 1, 3 of 4 did not report") as caught:
        answer(port, 4, timeout=1.5)
    assert str(came.exception()) == str(caught.value)


@pytest.mark.parametrize(
    ("process", "processes", "message"),
    [
        (1, 4, "was started as one of 4 processes, process 0 as one of 3"),
        (0, 3, "process 0 on .* runs on .* already: give each process its own TRAJVIT_PROCESS"),
    ],
)
def test_processes_of_other_numbers_are_refused_on_both_sides(
    port, threads, process, processes, message
):
    refused = threads.submit(call, (HERE, port), process, processes, timeout=20.0)
    with pytest.raises(ValueError, match=message):
        answer(port, 3, timeout=20.0)
    with pytest.raises(ValueError, match=message):
        refused.result()


def test_a_stranger_is_dropped_and_a_restarted_process_taken(port, threads):
    """A port scanner talks HTTP, and process 1 reports, dies, and reports again."""
    answered = threads.submit(answer, port, 3, timeout=20.0)
    with _connection(port) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\n")
    with _connection(port) as first:
        _report(first, 1, 3, machine="lost")
    again = threads.submit(call, (HERE, port), 1, 3, timeout=20.0)
    call((HERE, port), 2, 3, timeout=20.0)
    again.result()
    answered.result()


def test_a_process_that_was_lost_with_its_host_is_replaced(port, threads):
    """Its connection stays open: nothing says that the other end is gone."""
    answered = threads.submit(answer, port, 3, timeout=20.0)
    with _connection(port) as lost:
        _report(lost, 1, 3, machine="lost")
        again = threads.submit(call, (HERE, port), 1, 3, timeout=20.0)
        told = json.loads(lost.makefile().readline())
        call((HERE, port), 2, 3, timeout=20.0)
        again.result()
        answered.result()
    assert "process 1 on pod-1 was replaced" in told["error"] and not told["wrong"]


def test_two_processes_of_one_machine_cannot_have_one_number(port, threads):
    answered = threads.submit(answer, port, 3, timeout=20.0)
    with _connection(port) as first:
        _report(first, 1, 3, machine=machine())
        reason = (
            r"process 1 on \S+ runs on pod-1 already: give each process its own TRAJVIT_PROCESS"
        )
        with pytest.raises(ValueError, match=reason):
            call((HERE, port), 1, 3, timeout=20.0)
        with pytest.raises(ValueError, match=reason):
            answered.result()
        assert json.loads(first.makefile().readline())["wrong"]


def _report(peer, process, processes, *, machine):
    told = {"process": process, "processes": processes, "host": "pod-1", "machine": machine}
    peer.sendall(json.dumps(told | {"pid": 1}).encode() + b"\n")


def _connection(port):
    while True:
        try:
            return socket.create_connection((HERE, port), timeout=20)
        except ConnectionRefusedError:
            time.sleep(0.01)


def test_a_coordinator_that_is_not_there_is_an_error_in_words(port):
    with pytest.raises(ConnectionError, match=rf"process 1 of 2 could not .*127\.0\.0\.1:{port}"):
        start(Cluster(f"127.0.0.1:{port}", 2, 1), timeout=0.5)
    with pytest.raises(ConnectionError, match="process 1 of 2 did not report to process 0"):
        start(Cluster(f"127.0.0.1:{port}", 2, 0), timeout=0.5)


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConnectionError, match=f"cannot listen on port {port}"):
            start(Cluster(f"127.0.0.1:{port}", 2, 0), timeout=0.5)


def test_a_process_alone_starts_nothing():
    start(None)


PROXY = {"https_proxy": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("env", "direct"),
    [
        ({}, None),
        ({"no_proxy": "a"}, None),
        (PROXY, "node1"),
        ({"HTTP_PROXY": "http://proxy:3128"}, "node1"),
        (PROXY | {"no_proxy": "a,b"}, "a,b,node1"),
        (PROXY | {"no_proxy": "a,b", "no_grpc_proxy": "c"}, "c,node1"),
    ],
)
def test_a_proxy_is_not_asked_for_the_coordinator(env, direct):
    left = dict(env)
    bypass_proxies("node1", left)
    assert left.pop("no_grpc_proxy", None) == direct
    assert left == {name: value for name, value in env.items() if name != "no_grpc_proxy"}


def test_whoever_numbered_them_processes_start_past_a_proxy(monkeypatch, port):
    seen = []
    monkeypatch.setattr(
        jax.distributed,
        "initialize",
        lambda *_, **__: seen.append(dict(os.environ)),
    )
    monkeypatch.setenv("https_proxy", PROXY["https_proxy"])
    monkeypatch.setenv("no_grpc_proxy", "other")
    start(Cluster(f"localhost:{port}", 1, 0))
    [env] = seen
    assert env["no_grpc_proxy"] == "other,localhost"
