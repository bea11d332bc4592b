"""Bad and odd videos among good ones, through the learned backends with random weights."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import av
import numpy as np
import pytest

from tests.tokenization.conftest import Clips
from tokenization import pipeline, weights
from tokenization.learned import (
    DeviceSettings,
    DirectSamSettings,
    EdgeTamSettings,
    LearnedSettings,
    PointGridSettings,
    Sam2Settings,
)
from tokenization.manifest import Entry, read_entries
from tokenization.pipeline import PipelineSettings
from tokenization.recorder import ExtractSettings, Outcome, Recorder

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
    "sound": "has no video stream (only audio)",
}
# Name -> width, height, frames.
PLAIN = {"good": (96, 64, 6), "large": (3840, 2160, 4), "least": (2, 2, 4), "single": (64, 96, 1)}
ODD = ("dot", "turned", "varying")


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


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for name, size in PLAIN.items():
        write(folder / f"{name}.mp4", *size)
    clips = Clips(folder)
    clips.image("dot.png", 1, 1)
    clips.video("turned.mp4", noise(4, 47, 65), rotation=90, pixels="yuv444p")
    clips.video("varying.mp4", noise(5, 48, 64), times=[0, 0.01, 0.5, 0.52, 3.0])
    clips.audio("sound.mp4")
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("hello\n")
    (folder / "truncated.mp4").write_bytes((folder / "good.mp4").read_bytes()[:400])
    return folder


def record(
    entries: list[Entry], segmenter: str, tracker: str, precision: str
) -> dict[str, Outcome]:
    """Outcomes by id, of all entries at once."""
    pytest.importorskip("sam2", reason="sam2 is not installed: `make sam2`")
    running = dataclasses.replace(LEARNED.running, precision=precision)
    settings = PipelineSettings(
        frames=FRAMES,
        max_side=96,
        segmenter=segmenter,
        tracker=tracker,
        split="stride",
        clip_limit=2,
        learned=dataclasses.replace(LEARNED, running=running),
    )
    build = functools.partial(pipeline.build, weights=weights.RANDOM)
    recorder = Recorder(ExtractSettings(settings, record_size=32), build)
    return {one.id: one for one in recorder(entries)}


def assert_good(one: Outcome, *, frames: int = FRAMES, repeated: bool = False) -> None:
    assert one.quarantined is None, one.quarantined
    assert one.data and (one.frames, one.repeated) == (frames, repeated)


@pytest.mark.parametrize(("segmenter", "tracker"), [("directsam", "sam2"), ("sam2", "edgetam")])
def test_bad_videos_cost_only_themselves(torch, transformers, folder, segmenter, tracker):
    outcomes = record(read_entries(folder / "*"), segmenter, tracker, "float32")
    assert outcomes.keys() == BAD.keys() | PLAIN.keys() | set(ODD)
    for name, reason in BAD.items():
        quarantined = outcomes[name].quarantined
        assert quarantined is not None and quarantined.reason == reason
    for name, (_, _, frames) in PLAIN.items():
        assert_good(outcomes[name], repeated=frames < FRAMES)
    assert_good(outcomes["dot"], frames=1)
    assert_good(outcomes["turned"])
    assert_good(outcomes["varying"])


@pytest.mark.parametrize(("segmenter", "tracker"), [("directsam", "sam2"), ("sam2", "edgetam")])
def test_in_bfloat16(torch, transformers, folder, monkeypatch, segmenter, tracker):
    """As on a GPU: the segmenter does run in it, and odd videos do no harm there either."""
    from tokenization import devices

    seen = []
    images = devices.Device.images

    def note(self, *arguments):
        seen.append(torch.is_autocast_enabled("cpu"))
        return images(self, *arguments)

    monkeypatch.setattr(devices.Device, "images", note)
    wanted = [entry for entry in read_entries(folder / "*") if entry.id in ("dot", "good", "sound")]
    outcomes = record(wanted, segmenter, tracker, "bfloat16")
    assert_good(outcomes["dot"], frames=1)
    assert_good(outcomes["good"])
    assert outcomes["sound"].quarantined is not None
    assert seen and all(seen)
