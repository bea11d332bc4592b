"""The cost model's hours, and those that the configs' docstrings name."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import cost_model
from trajvit_jax.run.throughput import PEAKS

CONFIGS = Path(__file__).parent.parent / "configs"
ASSUMED = (0.45, 0.25)


def test_hours_are_work_over_rate():
    cost = cost_model.Cost("run", steps=3600, flops=1e12, slots=1.0)
    assert cost.hours(2, peak=1e12, utilization=0.25) == 2.0
    assert "| run | 3,600 | 1 | 1 | 0.5 to 1 | 0.1 to 0.2 | 0 |" in cost_model.table(
        [cost], 1e12, [0.125, 0.25]
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", cost_model.RUNS)
def test_docstrings_name_the_hours_of_the_model(name, monkeypatch):
    monkeypatch.chdir(CONFIGS.parent)
    said = " ".join((CONFIGS / f"{name}.py").read_text("utf-8").split())
    cost, peak = cost_model.cost(f"{name}.py"), PEAKS["NVIDIA H100"]
    for gpus in (32, 8):
        low, high = (round(cost.hours(gpus, peak, use), 1) for use in ASSUMED)
        assert f"{low:g} to {high:g}" in said
