"""The cost model's hours, and those that the configs' docstrings and docs/SCALING.md name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cost_model
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


@pytest.mark.slow
def test_the_paper_s_page_has_the_hours_of_the_model(monkeypatch):
    monkeypatch.chdir(ROOT)
    planned = json.loads((ROOT / "trajvit_jax/evals/paper_numbers.json").read_text("utf-8"))
    assert planned["gpu_hours"] == cost_model.gpu_hours(trained(), MACHINE)


@pytest.mark.parametrize("name", cost_model.RUNS)
def test_docstrings_and_the_page_name_the_hours_of_the_model(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    said = " ".join((ROOT / f"configs/{name}.py").read_text("utf-8").split())
    page = (ROOT / "docs/SCALING.md").read_text("utf-8").splitlines()
    cost = cost_model.cost(f"{name}.py")
    assert cost_model.table([cost], MACHINE).splitlines()[-1] in page
    for gpus in (32, 8):
        low, high = (round(hours, 1) for hours in cost.hours(gpus, MACHINE))
        assert f"{low:g} to {high:g}" in said
