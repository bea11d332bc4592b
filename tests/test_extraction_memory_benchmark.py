"""The memory benchmark makes the videos that it says, reads a worker's peak, and judges it."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import extraction_memory
from benchmarks.extraction_memory import FPS, Made, Peak, peak_megabytes, write_video
from tokenization.video import decode

# One worker, which holds so many bytes of its own for a while.
PARENT = """
import multiprocessing, time

def hold():
    held = b"x" * 200_000_000
    time.sleep(3)

if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=hold)
    process.start()
    process.join()
"""


def test_a_scene_is_played_to_and_fro_in_the_size_asked_for(tmp_path: Path):
    scene = np.broadcast_to(
        np.arange(40, 241, 40, dtype=np.uint8)[:, None, None, None], (6, 8, 8, 3)
    )
    write_video(tmp_path / "made.mp4", scene, Made(64, 32, 1))
    found = decode(tmp_path / "made.mp4", frames=FPS).rgb
    assert found.shape == (FPS, 32, 64, 3)
    levels = [40, 80, 120, 160, 200, 240, 200, 160, 120, 80, 40, 80]
    np.testing.assert_allclose(found[:12].mean((1, 2, 3)), levels, atol=8)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_the_peak_is_that_of_the_worker(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    assert 200 < peak_megabytes([sys.executable, str(script)]) < 300


@pytest.mark.parametrize(("line", "said"), [("print(1)", "code 0"), ("1 / 0", "ZeroDivisionError")])
def test_a_run_that_fails_or_has_no_worker_is_told(line: str, said: str):
    with pytest.raises(RuntimeError, match=said):
        peak_megabytes([sys.executable, "-c", line])


def test_bounds_are_those_of_the_frames():
    assert str(Peak("long", 16, 511.0, 9)).endswith("holds")
    assert str(Peak("long", 16, 512.0, 9)).endswith("FAILS")
    assert (Peak("long", 32, 600.0, 9).bound, Peak("long", 256, 600.0, 9).bound) == (2000, 2000)


@pytest.mark.parametrize(("megabytes", "code"), [(300.0, 0), (600.0, 1)])
def test_the_exit_code_is_the_verdict(
    megabytes: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """600 MB are too many for 16 frames, not for 256."""
    made = extraction_memory.made_clip
    monkeypatch.setattr(
        extraction_memory, "made_clip", lambda folder, sampled, width: made(folder, 2, 64)
    )
    monkeypatch.setattr(extraction_memory, "write_video", lambda path, *_: path.touch())
    monkeypatch.setattr(
        extraction_memory,
        "extracted",
        lambda path, name, frames, *_: Peak(name, frames, megabytes, 50),
    )
    assert extraction_memory.main([]) == code
    said = capsys.readouterr().out
    assert said.count("FAILS") == 3 * code and said.count("holds") == 5 - 3 * code
    assert "600 s of 640x360" in said and "10 s of 3840x2160" in said
