"""Measures that several runs keep in one file."""

from __future__ import annotations

import dataclasses

import pytest

from benchmarks import ablations, comparison
from benchmarks.parts.kept_measures import add_measures, read_measures


@dataclasses.dataclass(frozen=True)
class Measure:
    seconds: float


def test_each_run_adds_its_own(tmp_path):
    path = tmp_path / "kept.json"
    add_measures(path, {}, Measure)
    assert read_measures(path, Measure) == {} and not path.exists()
    add_measures(path, {"a": Measure(1.0), "b": Measure(2.0)}, Measure)
    add_measures(path, {"b": Measure(3.0)}, Measure)
    assert read_measures(path, Measure) == {"a": Measure(1.0), "b": Measure(3.0)}


@pytest.mark.parametrize("text", ["{", "[]", '{"a": 1}', '{"a": {"minutes": 1}}'])
def test_a_damaged_file_is_named_and_kept(tmp_path, text):
    path = tmp_path / "kept.json"
    path.write_text(text, "utf-8")
    with pytest.raises(ValueError, match=r"kept\.json does not hold Measure by name .*; restore"):
        add_measures(path, {"b": Measure(3.0)}, Measure)
    assert path.read_text("utf-8") == text


def test_models_are_not_trained_on_the_world_alone_without_a_word(monkeypatch, caplog):
    monkeypatch.delenv("TRAJVIT_TEST_DATA", raising=False)
    for command in (ablations, comparison):
        caplog.clear()
        assert not command.kind_of_rows(command.parse([]))["real"]
        assert "TRAJVIT_TEST_DATA" in caplog.text
        caplog.clear()
        assert command.kind_of_rows(command.parse(["--table"]))["real"]
        assert not caplog.text
