"""A tokenizer of a fixed grid, and small extractions with it, for the tests of extraction."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from tokenization import manifest
from tokenization.engines.inline import InlineEngine
from tokenization.extract import ExtractSettings, extract
from tokenization.pipeline import PipelineSettings
from tokenization.trajectories import Trajectories

SETTINGS = ExtractSettings(PipelineSettings(frames=4), record_size=32, shard_size=2)


class Grid:
    """A tokenizer of 4x4 cells that writes down what it was given."""

    seen: ClassVar[list[str]] = []

    def __init__(self, settings):
        self.settings = settings

    def tokenize(self, frames):
        self.seen.append(frames.video.id)
        t, h, w, _ = frames.rgb.shape
        labels = np.arange(h)[:, None] * 4 // h * 4 + np.arange(w) * 4 // w + 1
        return Trajectories.from_labels(
            np.broadcast_to(labels, (t, h, w)),
            frame_times=frames.times,
            key_frames=np.arange(t) == 0,
            video=frames.video,
        )


run = functools.partial(extract, settings=SETTINGS, build=Grid, engine=InlineEngine())


def read(root: Path, lines: list[dict]) -> list[manifest.Entry]:
    path = root / "clips.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest.read_manifest(path)
