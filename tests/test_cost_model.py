"""The cost model's hours, and those that the configs' docstrings and docs/SCALING.md name."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from benchmarks import cost_model, input_pipeline
from trajvit_jax.evals.paper import trained
from trajvit_jax.run.throughput import PEAKS

ROOT = Path(__file__).parent.parent
# What the docstrings and the page assume.
MACHINE = cost_model.Machine(PEAKS["NVIDIA H100"], (0.45, 0.25), 400e9)


def test_a_step_computes_and_exchanges():
    machine = cost_model.Machine(peak=1e12, utilizations=(0.5, 0.25), bandwidth=1e9)
    one = cost_model.Cost("run", 3600, flops=1e12, slots=1.0, parameters=250_000_000)
    assert one.compute(2, machine) == (1.0, 2.0)
    assert one.exchange(2, machine) == 1.0 and one.exchange(4, machine) == 1.5
    assert one.hours(2, machine) == (1.0, 3.0)  # hidden, and not
    assert one.hours(8, machine) == (1.75, 0.5 + 1.75)  # the exchange is the longer one
    line = cost_model.table([one], machine).splitlines()[-1]
    assert line == (
        "| run | 3,600 | 1 | 1 | 250 to 500 + 1.75e+03 | 1.8 to 2.2 | 62.5 to 125 + 1.94e+03 | "
        "1.9 to 2.1 | 7.81 to 15.6 + 1.99e+03 | 2 |"
    )


def test_hosts_read_what_their_gpus_compute():
    machine = cost_model.Machine(peak=1e12, utilizations=(0.5, 0.25), bandwidth=1e9)
    one = cost_model.Cost("run", 1, 3.2e13, 1.0, 0, videos=340.0, images=729.0)
    # A step is 8 to 16 s on 8 GPUs, and 2 to 4 on 32, of four hosts.
    whole = {"videos": (340 / 16, 340 / 8), "images": (729 / 16, 729 / 8)}
    assert one.reads(8, machine) == one.reads(32, machine) == whole
    assert one.cores(8, machine) == (1, 1)  # 5 core seconds
    fast = dataclasses.replace(one, steps=36_000, flops=3.2e12, images=0.0)
    assert fast.cores(8, machine) == (3, 5) and fast.reads(8, machine).keys() == {"videos"}
    line = cost_model.reading_table([fast], machine).splitlines()[-1]
    read = [f"212 to 425 videos | 3 to 5 | {hours}" for hours in ("6.8", "1.7", "0.2")]
    assert line == f"| run | {' | '.join(read)} |"


def test_a_run_reads_at_the_rate_of_its_processes():
    one = cost_model.Cost("run", 3600, 1.0, 1.0, 0, videos=1000.0, images=1600.0)
    assert one.reading_hours(1) == pytest.approx((2 + 1600 / 1900, 3.0))
    assert one.reading_hours(4, 8) == pytest.approx((one.reading_hours(1)[0] / 32, 3 / 32))


@pytest.mark.slow
def test_the_paper_s_page_has_the_hours_of_the_model(monkeypatch):
    monkeypatch.chdir(ROOT)
    planned = json.loads((ROOT / "trajvit_jax/evals/paper_numbers.json").read_text("utf-8"))
    assert planned["gpu_hours"] == cost_model.gpu_hours(trained(), MACHINE)


@pytest.mark.parametrize("name", cost_model.RUNS)
def test_docstrings_and_the_page_name_the_hours_of_the_model(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    said, cost = docstring(name), cost_model.cost(f"{name}.py")
    assert_hours(said, cost, 32, 8)
    assert_on_page(cost)
    few, many = cost.cores(32, MACHINE)
    assert f"{few} to {many} cores on 32 GPUs" in said
    few, many = cost.cores(8, MACHINE)
    assert f"{few} to {many} on 8" in said
    assert reading(cost) in said


def reading(cost: cost_model.Cost) -> str:
    def hours(hosts: int, processes: int) -> str:
        ends = (f"{round(end, 1):g}" for end in cost.reading_hours(hosts, processes))
        return " to ".join(dict.fromkeys(ends))

    return (
        f"Reading alone takes one process a host {hours(4, 1)} hours on 4 hosts and {hours(1, 1)} "
        f"on 1, eight a host {hours(4, 8)} and {hours(1, 8)}"
    )


@pytest.mark.parametrize("name", cost_model.COUNTERPARTS)
def test_so_they_do_of_models_of_patches(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    cost = cost_model.cost(f"{name}.py:model={cost_model.COUNTERPARTS[name]}")
    assert_hours(docstring(name), cost, 32)
    assert_on_page(cost)


def test_a_run_from_images_names_its_hours_and_theirs(monkeypatch):
    monkeypatch.chdir(ROOT)
    said = docstring("panda8m_from_images")
    videos = cost_model.cost("panda8m_from_images.py")
    assert_hours(said, videos, 32, 8)
    assert reading(videos) in said
    assert_hours(said, cost_model.cost("datacomp50m.py:model=vit"), 32, 8)


def test_the_benchmark_of_reading_knows_the_rates_of_a_gpu(monkeypatch):
    monkeypatch.chdir(ROOT)
    for kind, names in (
        ("videos", ("panda8m.py:model=vit3d", "panda8m.py")),
        ("images", ("datacomp50m.py:model=vit", "datacomp50m.py")),
    ):
        costs = [cost_model.cost(name) for name in names]
        ends = [(one.compute(1, MACHINE)[end], one) for one in costs for end in (1, 0)]
        found = tuple(round(getattr(one, kind) / seconds) for seconds, one in ends)
        assert input_pipeline.RATES[kind] == pytest.approx(found, abs=1)  # as `alike`


def test_the_page_names_what_reading_alone_takes(monkeypatch):
    monkeypatch.chdir(ROOT)
    page = " ".join((ROOT / "docs/SCALING.md").read_text("utf-8").split())
    runs = ("panda8m", "datacomp50m", "panda8m_datacomp50m")
    costs = [cost_model.cost(f"{name}.py") for name in runs]

    def hours(one: cost_model.Cost, hosts: int, processes: int, digits: int | None) -> str:
        ends = (f"{round(end, digits):g}" for end in one.reading_hours(hosts, processes))
        return " to ".join(dict.fromkeys(ends))

    videos, images, both = (hours(one, 4, 1, None) for one in costs)
    assert (
        f"{videos} hours for 8 M videos, and {images} for 50 M images, 30 epochs of each, and "
        f"{both} for both in one run"
    ) in page
    videos, images, both = (hours(one, 1, 1, None) for one in costs)
    assert f"{videos} hours, {images}, and {both}" in page
    videos, images, both = (hours(one, 4, 8, 1) for one in costs)
    assert f"{videos} hours for 8 M videos, {images} for 50 M images, and {both} for both" in page
    videos, images, both = (hours(one, 1, 8, 1) for one in costs)
    assert f"on one host {videos}, {images}, and {both}" in page


def docstring(name: str) -> str:
    return " ".join((ROOT / f"configs/{name}.py").read_text("utf-8").split())


def assert_hours(said: str, cost: cost_model.Cost, *gpus: int) -> None:
    for number in gpus:
        low, high = (round(hours, 1) for hours in cost.hours(number, MACHINE))
        assert f"{low:g} to {high:g}" in said


def assert_on_page(cost: cost_model.Cost) -> None:
    page = (ROOT / "docs/SCALING.md").read_text("utf-8").splitlines()
    for table in (cost_model.table, cost_model.reading_table):
        row = table([cost], MACHINE).splitlines()[-1]
        assert any(alike(row, line) for line in page), row


_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e[+-]\d+)?")


def alike(row: str, line: str) -> bool:
    """Whether they differ by one in last digits at most.

    XLA of jax 0.10 and that of 0.11 count FLOPs that differ by five millionths, which may round.
    """
    if _NUMBER.sub("#", row) != _NUMBER.sub("#", line):
        return False
    pairs = zip(_NUMBER.findall(row), _NUMBER.findall(line), strict=True)
    return all(abs(_value(a) - _value(b)) <= 1.001 * max(_digit(a), _digit(b)) for a, b in pairs)


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _digit(number: str) -> float:
    """What one in its last digit is."""
    mantissa, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def test_rows_alike():
    assert alike("| a | 1,303,711 | 340 | 3.1e+03 |", "| a | 1,303,711 | 341 | 3.2e+03 |")
    assert not alike("| a | 340 |", "| a | 342 |") and not alike("| a | 3.1 |", "| b | 3.1 |")
    assert not alike("| a | 3.11 to 4 |", "| a | 3.13 to 4 |")
