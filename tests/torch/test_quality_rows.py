"""Networks have rows and contact sheets of their own in the quality benchmark."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import tokenization_quality
from tokenization.learned import DeviceSettings, LearnedSettings
from tokenization.pipeline import PipelineSettings
from tokenization.weights import WeightsError

pytestmark = pytest.mark.torch


@pytest.fixture
def sequence(tmp_path: Path) -> Path:
    """A bright square that moves over four plain tiles, 64 pixels a side: few segments."""
    for kind in ("frames", "masks"):
        (tmp_path / "davis" / "one" / kind).mkdir(parents=True)
    for t in range(4):
        image = np.kron([[60, 90], [120, 150]], np.ones((32, 32)))[..., None].repeat(3, 2)
        mask = np.zeros((64, 64, 3), np.uint8)
        image[20:44, 4 * t + 8 : 4 * t + 32] = mask[20:44, 4 * t + 8 : 4 * t + 32] = 230
        for kind, pixels in (("frames", image), ("masks", mask)):
            cv2.imwrite(str(tmp_path / "davis" / "one" / kind / f"{t:05}.png"), pixels)
    return tmp_path / "davis"


def test_a_network_has_a_row_and_a_sheet(
    sequence: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    own = "configs/tokenization/classical.py:frames=4"
    learned = "frames=4,segmenter=classical,tracker=sam2,sam2=tiny,resolution=128"
    both = (own, f"configs/tokenization/paper.py:{learned}")
    report, sheets = tmp_path / "report.json", tmp_path / "sheets"
    arguments = ["--no_world", f"--davis={sequence}", *(f"--tokenizer={one}" for one in both)]
    told = [f"--json={report}", f"--sheets={sheets}"]
    assert tokenization_quality.main([*arguments, *told, "--weights=random"]) == 0
    rows = json.loads(report.read_text())["davis"]
    assert set(rows) == {"classical + flow", "classical + sam2", "mask copied", "flow only"}
    assert rows["classical + sam2"]["one"]["seconds"] > 0
    names = sorted(path.name for path in sheets.iterdir())
    assert names == ["classical+flow-one.png", "classical+sam2-one.png"]
    one, other = (cv2.imread(str(sheets / name)) for name in names)
    assert one.shape == other.shape and (one != other).any()  # three rows of either
    assert "classical + sam2" in capsys.readouterr().out
    with pytest.raises(WeightsError, match="nowhere do not exist"):
        tokenization_quality.main([*arguments, f"--weights={tmp_path}/nowhere"])


def test_work_on_a_device_is_done_before_its_time_is_read(monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr("torch.cuda.synchronize", lambda: told.append("waited"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    learned = LearnedSettings(running=DeviceSettings(device="cpu"))
    for settings in (PipelineSettings(), PipelineSettings(tracker="sam2", learned=learned)):
        assert tokenization_quality.clock_of(settings) is time.process_time
    clock = tokenization_quality.clock_of(PipelineSettings(tracker="sam2"))
    assert told == []
    assert abs(clock() - time.perf_counter()) < 60
    assert told == ["waited"]
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert tokenization_quality.clock_of(PipelineSettings(tracker="sam2")) is time.process_time
