"""Small video files, written with PyAV, for the tests of reading and of extraction."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.tokenization.extraction import Grid, read
from tokenization.annotations.datasets import DATASETS
from tokenization.annotations.media import Media
from tokenization.annotations.problems import Malformed
from tokenization.annotations.writer import write_manifest
from tokenization.manifest import Entry, read_manifest


@pytest.fixture
def caplog(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Hears absl's logger, whatever libraries and other tests have done to it."""
    logger = logging.getLogger("absl")
    before = logger.disabled, logger.propagate
    logger.disabled, logger.propagate = False, True
    with caplog.at_level(logging.WARNING, "absl"):
        yield caplog
    logger.disabled, logger.propagate = before


class Clips:
    """Writes small files below a folder; frame i of a clip is grey `level(i)`, unless given."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @staticmethod
    def level(index: int) -> int:
        return 20 + index * 10 % 200

    def grey(self, frames: int, width: int = 64, height: int = 48) -> np.ndarray:
        levels = np.array([self.level(i) for i in range(frames)], np.uint8)
        return np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3))

    def video(
        self,
        name: str = "clip.mp4",
        frames: int | np.ndarray = 20,
        *,
        fps: int = 10,
        times: list[float] | None = None,
        rotation: float = 0,
        mirror: str = "",
        codec: str = "libx264",
        pixels: str = "yuv420p",
        g: str = "12",
        **options: str,
    ) -> Path:
        """Writes a video; `times` (seconds) make its frame rate variable, `g` spaces key frames."""
        rgb = self.grey(frames) if isinstance(frames, int) else frames
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w", options=options) as container:
            stream = container.add_stream(codec, rate=fps, options={"g": g})
            stream.height, stream.width = rgb.shape[1:3]
            stream.pix_fmt = pixels
            stream.codec_context.time_base = Fraction(1, 1000)
            if rotation or mirror:
                flips = {"hflip": mirror == "hflip", "vflip": mirror == "vflip"}
                stream.set_display_rotation(rotation, **flips)
            for index, image in enumerate(rgb):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
                frame.time_base = Fraction(1, 1000)
                frame.pts = round(1000 * (index / fps if times is None else times[index]))
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def audio(self, name: str = "sound.mp4") -> Path:
        path = self.root / name
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
            frame.sample_rate = 16000
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        return path

    def image(self, name: str = "image.png", width: int = 64, height: int = 48) -> Path:
        path = self.root / name
        cv2.imwrite(str(path), np.full((height, width, 3), (0, 0, 255), np.uint8))  # red
        return path

    def data(self, name: str, content: bytes) -> Path:
        path = self.root / name
        path.write_bytes(content)
        return path


@pytest.fixture
def clips(tmp_path: Path) -> Clips:
    return Clips(tmp_path)


@pytest.fixture
def entries(clips: Clips) -> list[Entry]:
    """Five good clips, one of them short, one an image, and a manifest that names them."""
    for name in "abc":
        clips.video(f"{name}.mp4", frames=10)
    clips.video("short.mp4", frames=3)
    clips.image("still.png")
    lines = [
        {"id": "a", "path": "a.mp4", "captions": ["one", "two"], "label": "run", "views": 3},
        {"id": "b", "path": "b.mp4", "start": 0.3, "end": 0.8},
        {"id": "c", "path": "c.mp4", "boxes": [{"time": 0.5, "box": [0, 0, 1, 1], "label": "x"}]},
        {"id": "short", "path": "short.mp4"},
        {"id": "still", "path": "still.png"},
    ]
    return read(clips.root, lines)


@pytest.fixture
def seen() -> list[str]:
    """Videos that the grid tokenizer is given from now on."""
    Grid.seen = []
    return Grid.seen


class AnnotationFolder:
    """A folder of annotation files in their published schemas, and of media beside them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "media").mkdir()

    def __truediv__(self, name: str) -> Path:
        return self.root / name

    def put(self, name: str, content: object = "") -> Path:
        """Writes text, or anything else as JSON."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
        return path

    def read(self, dataset: str, *files: Path, **options: object) -> list[Entry | Malformed]:
        """What the dataset's reader yields."""
        (reader,) = (known.read for known in DATASETS if known.name == dataset)
        return list(reader(files, Media(self.root / "media"), **options))

    def entries(self, dataset: str, *files: Path, **options: object) -> dict[str, Entry]:
        """What it yields, after a round trip through a manifest; nothing is malformed."""
        found = self.read(dataset, *files, **options)
        assert not [item for item in found if isinstance(item, Malformed)]
        write_manifest(found, self.root / "all.jsonl", keep_missing=True)
        back = read_manifest(self.root / "all.jsonl")
        assert len(back) == len(found)
        assert not any(entry.problem for entry in back)
        return {entry.id: entry for entry in back}


@pytest.fixture
def folder(tmp_path: Path) -> AnnotationFolder:
    return AnnotationFolder(tmp_path)
