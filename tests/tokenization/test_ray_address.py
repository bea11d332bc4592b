"""The address of a Ray cluster: nobody waits for minutes where there is none. Needs no Ray."""

from __future__ import annotations

import socket
import types

import pytest

from tokenization.engines import ray_actors
from tokenization.engines.protocol import EngineError
from tokenization.engines.ray_actors import RayEngine


@pytest.fixture
def ray():
    """Writes down what it connects to."""
    asked: list[str] = []
    return types.SimpleNamespace(
        init=lambda address, **_: asked.append(address),
        exceptions=types.SimpleNamespace(RayError=RuntimeError),
        asked=asked,
    )


@pytest.fixture
def port(monkeypatch):
    """Of this machine, at which nobody answers."""
    monkeypatch.setattr(ray_actors, "_REACH_SECONDS", 0.2)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # without listen
        yield taken.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}", "[::1]:{}"])
def test_nobody_answers(ray, port, address):
    address = address.format(port)
    with pytest.raises(EngineError, match=r"no Ray cluster at .* start one with launch/"):
        RayEngine(address)._connect(ray, address)
    assert ray.asked == []


@pytest.mark.parametrize("address", ["unknown:6379", "127.0.0.1:99999"])
def test_no_address_of_a_machine(ray, port, address, monkeypatch):
    def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    if address.startswith("unknown"):
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(EngineError, match="no Ray cluster at"):
        RayEngine(address)._connect(ray, address)


def test_who_answers_is_asked(ray):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        RayEngine(address)._connect(ray, address)
    assert ray.asked == [address]


@pytest.mark.parametrize("address", ["auto", "local", "anyscale://cluster"])
def test_other_addresses_are_for_ray_to_understand(ray, address):
    RayEngine(address)._connect(ray, address)
    assert ray.asked == [address]


def test_a_cluster_that_is_starting_is_waited_for(ray, port, monkeypatch):
    monkeypatch.setattr(ray_actors, "_REACH_SECONDS", 30.0)
    servers = []

    def start(_):
        servers.append(socket.create_server(("127.0.0.1", 0)))
        where["port"] = servers[-1].getsockname()[1]

    where = {"port": port}
    connect = socket.create_connection
    monkeypatch.setattr(ray_actors.time, "sleep", start)
    monkeypatch.setattr(
        ray_actors.socket,
        "create_connection",
        lambda place, **options: connect((place[0], where["port"]), **options),
    )
    RayEngine("127.0.0.1:6379")._connect(ray, "127.0.0.1:6379")
    assert ray.asked == ["127.0.0.1:6379"]
    for server in servers:
        server.close()
