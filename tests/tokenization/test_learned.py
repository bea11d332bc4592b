"""Settings of the learned backends, which need no torch."""

from __future__ import annotations

import dataclasses
import importlib.machinery
import json
import sys
import types
from pathlib import Path

import pytest

from tokenization import backends, pipeline, weights
from tokenization.learned import (
    DeviceSettings,
    DirectSamSettings,
    EdgeTamSettings,
    LearnedSettings,
    PointGridSettings,
    Sam2Settings,
)
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings
from trajvit_jax import config

CONFIGS = Path(__file__).parents[2] / "configs/tokenization"


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (DeviceSettings, {"precision": "bfloat"}, "did you mean 'bfloat16'"),
        (DeviceSettings, {"objects": 0}, r"DeviceSettings\.objects = 0 must be >= 1"),
        (DirectSamSettings, {"size": "b9"}, "DirectSamSettings.size = 'b9'"),
        (DirectSamSettings, {"resolution": 500}, "resolution = 500 must be a multiple of 32"),
        (DirectSamSettings, {"threshold": 1.2}, r"threshold = 1\.2 must be within 0\.\.1"),
        (DirectSamSettings, {"min_area": -1}, "min_area = -1 must be >= 0"),
        (Sam2Settings, {"size": "huge"}, "known: base_plus, large, small, tiny"),
        (Sam2Settings, {"resolution": 0}, "resolution = 0 must be a multiple of 128"),
        (PointGridSettings, {"side": 0}, "side = 0 must be >= 1"),
        (PointGridSettings, {"min_quality": -0.1}, "min_quality"),
        (EdgeTamSettings, {"resolution": 512 + 128}, "must be a multiple of 256"),
    ],
)
def test_settings_are_checked(kind, values, message, annotations_unchecked):
    with pytest.raises(ValueError, match=message):
        kind(**values)


def resolve(name: str) -> PipelineSettings:
    return config.to_settings(ExtractSettings, config.load(f"{CONFIGS}/{name}")).pipeline


def test_the_paper_is_the_default_of_its_config():
    paper = resolve("paper.py")
    assert (paper.segmenter, paper.tracker, paper.split) == ("directsam", "sam2", "both")
    assert (paper.frames, paper.link_iou, paper.link_rule) == (16, 0.8, "one_to_one")
    assert paper.learned == LearnedSettings()
    assert pipeline.learned_parts(paper) == [
        backends.SEGMENTERS["directsam"],
        backends.TRACKERS["sam2"],
    ]


def test_ablations_reach_the_settings():
    large = resolve("paper.py:resolution=1024,segmenter=sam2,sam2=large,split=keyframes,iou=0.5")
    assert large.learned.sam2.resolution == 1024
    plain = resolve("paper.py:resolution=1024").learned
    assert plain.directsam.resolution == plain.sam2.resolution == 1024
    assert (large.max_side, large.split, large.link_iou) == (1024, "keyframes", 0.5)
    names = [[f.name for f in p.files(large.learned)] for p in pipeline.learned_parts(large)]
    assert names == [["sam2.1_hiera_large.pt"]] * 2
    assert pipeline.learned_parts(resolve("paper.py:segmenter=classical,tracker=none")) == []


def test_the_resolution_is_that_of_every_tracker():
    light = resolve("paper.py:tracker=edgetam")
    assert (light.max_side, light.learned.edgetam.resolution) == (512, 512)
    assert resolve("paper.py:tracker=edgetam,resolution=1024").learned.edgetam.resolution == 1024
    with pytest.raises(ValueError, match="resolution = 384 must be a multiple of 256"):
        resolve("paper.py:tracker=edgetam,resolution=384")


def test_weights_are_not_downloaded_for_packages_that_are_not_there(monkeypatch):
    backend = backends.TRACKERS["edgetam"]
    monkeypatch.setattr(backends, "_import", lambda name: None)  # torch is, or seems to be
    monkeypatch.setitem(sys.modules, "transformers", types.ModuleType("transformers"))
    sys.modules["transformers"].__spec__ = importlib.machinery.ModuleSpec("transformers", None)
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr(weights, "locate", lambda *_: pytest.fail("asked for weights"))
    with pytest.raises(backends.MissingBackend, match=r"edgetam needs the package 'timm'.*make"):
        backends.prepare([backend], LearnedSettings())


def test_weights_that_a_config_names_are_those_that_are_used(tmp_path, monkeypatch):
    """As for DirectSAM, whose published file has no known sum."""
    monkeypatch.setattr(backends, "_import", lambda name: None)
    path = tmp_path / "model.safetensors"
    path.write_bytes((2).to_bytes(8, "little") + b"{}")
    backend = backends.Backend("x", lambda _: (weights.DIRECTSAM,), ())
    name = weights.DIRECTSAM.name
    pinned = LearnedSettings(sums=((name, weights.sha256(path)),))
    assert backends.prepare([backend], pinned, str(path)) == pinned
    note = {"url": "main", "sha256": weights.sha256(path), "commit": "abc123"}
    path.with_name("model.safetensors.source.json").write_text(json.dumps(note))
    told = backends.prepare([backend], pinned, str(path))
    assert told == dataclasses.replace(pinned, revisions=((name, "abc123"),))
    path.write_bytes((3).to_bytes(8, "little") + b"{ }")
    with pytest.raises(weights.WeightsError, match="not the file that this dataset is made with"):
        backends.prepare([backend], pinned, str(path))
    told = backends.prepare([backend], LearnedSettings(), str(path))
    assert told.revisions == ()  # the note is that of another file


def test_the_released_program_links_many_to_one_from_one_half_on():
    released = resolve("released.py")
    assert (released.split, released.link_iou, released.link_rule) == (
        "stride",
        0.5,
        "many_to_one",
    )
    cut = resolve("released.py:keyframes")
    assert (cut.split, cut.keyframes.detectors) == ("keyframes", "released")


def test_the_embedded_default_needs_nothing():
    settings = PipelineSettings()
    assert pipeline.prepare(settings, "no such folder") is settings
