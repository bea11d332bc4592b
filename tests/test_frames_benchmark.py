"""The benchmark of cost by frames: its sizes, its page and its verdict."""

from __future__ import annotations

import dataclasses
from xml.etree import ElementTree

import jax
import pytest

from benchmarks import frames
from benchmarks.parts import table_text
from trajvit_jax.models.costs import tokens_of
from trajvit_jax.models.settings import FED_TRAJVIT, NAMES
from trajvit_jax.models.summary import with_frames


def cost(model, length, **changed):
    values = {"tokens": (150, 150), "gflops": 1.0 * length, "milliseconds": 2.0, "megabytes": 3.0}
    return frames.Cost(model, length, **values | changed)


def test_every_model_of_videos_has_its_sizes_at_all_lengths():
    assert set(frames.MODELS) == {*NAMES, *FED_TRAJVIT} - {"vit"}
    paper, small = frames.paper_settings(), frames.small_settings()
    assert (paper.encoder.width, small.encoder.width) == (1024, 192)
    tokens = {
        name: [tokens_of(with_frames(paper, name, length)).first - 1 for length in frames.FRAMES]
        for name in frames.MODELS
    }
    assert tokens["trajvit"] == [150] * 4 and tokens["tracking_only"] == [196] * 4
    assert tokens["segmentation_only"] == [960, 1920, 3840, 7680]
    assert with_frames(small, "segmentation_only", 16).trajvit.position == "boxes_and_frames"
    assert tokens["vit3d"] == tokens["rlt"] == [1568, 3136, 6272, 12544]
    with pytest.raises(ValueError, match="vit3d does not read 17 frames"):
        with_frames(small, "vit3d", 17)


@pytest.mark.slow
def test_time_and_memory_are_measured(monkeypatch):
    small = frames.small_settings()
    encoder = dataclasses.replace(small.encoder, depth=1)
    tiny = dataclasses.replace(small, image_size=32, encoder=encoder)
    monkeypatch.setattr(frames, "small_settings", lambda: tiny)
    contender, precisions = frames._contender, []

    def noted(*arguments):
        precisions.append(jax.config.jax_default_matmul_precision)
        return contender(*arguments)

    monkeypatch.setattr(frames, "_contender", noted)
    [one] = frames.measure(["tracking_only"], [16], 1)
    assert one.tokens == (196, 196) and one.milliseconds > 0 and one.megabytes > 0
    assert precisions == ["highest"]  # float32 on a GPU, too


def test_the_charts_are_one_picture_with_a_line_a_model():
    costs = [cost(name, length) for name in ("trajvit", "tome") for length in (16, 32)]
    picture = ElementTree.fromstring(frames.charts(costs))
    spaces = {"svg": "http://www.w3.org/2000/svg"}
    lines = picture.findall(".//svg:polyline", spaces)
    assert len(lines) == 6
    assert {line.find("svg:title", spaces).text for line in lines} == {"TrajViT", "ToMe"}


def test_the_verdict_compares_the_longest_clips():
    costs = [cost("trajvit", 16), cost("trajvit", 32), cost("vit3d", 16, milliseconds=1.0)]
    costs.append(cost("vit3d", 32, gflops=1e3, milliseconds=9.0, megabytes=2.0))
    assert list(frames.verdict(costs).values()) == [True, True, False, True]
    assert frames.growth(costs, "vit3d", "milliseconds") == 9
    said = frames.markdown([one.cells() for one in costs]).splitlines()
    assert said[0].startswith("| model | frames |") and len(said) == 6


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "FRAMES.md"
    path.write_text("<!-- frames -->\n<!-- end of frames -->\n")
    return path


def test_flops_alone_make_a_page_with_one_chart(page, capsys):
    code = frames.main(["--flops", f"--page={page}"])
    said = capsys.readouterr().out
    assert code == 0 and "holds: TrajViT's FLOPs at 128 frames" in said
    assert "| ToMe | 128 | 12,544 to 10,984 |" in page.read_text()
    assert "Median of" not in said + page.read_text()
    assert page.with_name("frames.svg").read_text().count("<polyline") == len(frames.MODELS)


@pytest.mark.parametrize("some", ["--frames=16,32", "--frames=16,256", "--models=trajvit,vit3d"])
def test_some_models_or_lengths_leave_the_page_as_it_is(page, capsys, some):
    before = page.read_text()
    assert frames.main(["--flops", some, f"--page={page}"]) == 0
    assert "stays as it is: it is of all models and lengths" in capsys.readouterr().out
    assert page.read_text() == before and not page.with_name("frames.svg").exists()


def test_flops_alone_take_no_times_from_a_page(page, capsys, monkeypatch):
    counted = frames.count_flops(frames.MODELS, frames.FRAMES)
    timed = [dataclasses.replace(one, milliseconds=12.0, megabytes=34.0) for one in counted]
    monkeypatch.setattr(frames, "measure", lambda *_: timed)
    frames.main([f"--page={page}"])
    where = frames._protocol(7)
    assert where.startswith("Median of 7 rounds, all models in turn, on ")
    before = page.read_text()
    assert where in capsys.readouterr().out
    assert table_text.read_block(page, "frames").endswith(f"|\n\n{where}")
    assert frames.main(["--flops", f"--page={page}"]) == 0
    assert "stays as it is: it has times and memory" in capsys.readouterr().out
    assert page.read_text() == before
    assert frames.not_for_page(timed, page) is None


def test_unknown_models_and_lengths_are_named(capsys):
    for arguments in (["--models=tomee"], ["--frames=16,many"]):
        with pytest.raises(SystemExit):
            frames.main(arguments)
    said = capsys.readouterr().err
    assert "did you mean 'tome'" in said and "got 'many'" in said
