"""Bad and odd videos among good ones, through the learned backends with random weights."""

from __future__ import annotations

import functools
from pathlib import Path

import av
import numpy as np
import pytest

from tokenization import pipeline, weights
from tokenization.learned import (
    DeviceSettings,
    DirectSamSettings,
    EdgeTamSettings,
    LearnedSettings,
    PointGridSettings,
    Sam2Settings,
)
from tokenization.manifest import read_entries
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings, Recorder

pytestmark = pytest.mark.torch

LEARNED = LearnedSettings(
    directsam=DirectSamSettings("b0", resolution=128),
    sam2=Sam2Settings("tiny", resolution=128),
    point_grid=PointGridSettings(side=3, min_quality=0.0, min_stability=0.0),
    edgetam=EdgeTamSettings(resolution=256),
    running=DeviceSettings(device="cpu", precision="float32"),
)
FRAMES = 3
BAD = {
    "empty": "is empty (0 bytes)",
    "text": "holds text, not video",
    "truncated": "is truncated (an MP4 without its index)",
}
# Name -> width, height, frames.
GOOD = {"good": (96, 64, 6), "large": (3840, 2160, 4), "least": (2, 2, 4), "single": (64, 96, 1)}


def write(path: Path, width: int, height: int, frames: int) -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (2, 2, 3)).astype(np.uint8)
    rgb = coarse.repeat(height // 2, 0).repeat(width // 2, 1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            shown = np.roll(rgb, 8 * i, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shown, "rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, size in GOOD.items():
        write(folder / f"{name}.mp4", *size)
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello\n")
    (folder / "truncated.mp4").write_bytes((folder / "good.mp4").read_bytes()[:400])
    return folder


@pytest.mark.parametrize(("segmenter", "tracker"), [("directsam", "sam2"), ("sam2", "edgetam")])
def test_bad_videos_cost_only_themselves(torch, transformers, folder, segmenter, tracker):
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    settings = PipelineSettings(
        frames=FRAMES,
        max_side=96,
        segmenter=segmenter,
        tracker=tracker,
        split="stride",
        clip_limit=2,
        learned=LEARNED,
    )
    build = functools.partial(pipeline.build, weights=weights.RANDOM)
    recorder = Recorder(ExtractSettings(settings, record_size=32), build)
    outcomes = {one.id: one for one in recorder(read_entries(folder))}
    assert outcomes.keys() == BAD.keys() | GOOD.keys()
    for name, reason in BAD.items():
        quarantined = outcomes[name].quarantined
        assert quarantined is not None and quarantined.reason == reason
    for name, (_, _, frames) in GOOD.items():
        one = outcomes[name]
        assert one.quarantined is None, one.quarantined
        assert one.data and one.frames == FRAMES and one.repeated == (frames < FRAMES)
