"""Writes captioned videos with their ground truth, and reads the truth back.

DIR/settings.json                  what all splits of the folder were made with
DIR/train/manifest.jsonl           one line a video, paths relative to DIR/train
DIR/train/videos/ID.mp4
DIR/train/truth/ID.npz, ID.json    labels of every frame; objects and event log
DIR/test/...
"""

from __future__ import annotations

import dataclasses
import json
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from tqdm import tqdm

from tokenization.encode import write_video
from tokenization.files import replacing, write_text
from tokenization.world.captions import Split, action, caption, split_of
from tokenization.world.events import Event, events
from tokenization.world.render import Rendered, render
from tokenization.world.sampling import sample_scene
from tokenization.world.scenes import Scene, WorldSettings
from trajvit_jax.config import differences

FORMAT = 1
"""Counts changes of the generator that change what a seed gives."""
SPLITS: tuple[Split, ...] = ("train", "test")
_DRAWS = 1000


@dataclasses.dataclass(frozen=True)
class TruthObject:
    """An object as the truth remembers it.

    Attributes:
      id: its label.
      colour: a key of `scenes.COLOURS`.
      shape: one of `scenes.SHAPES`.
      size: one of `scenes.SIZES`.
      frames: how many frames show at least one pixel of it.
    """

    id: int
    colour: str
    shape: str
    size: str
    frames: int


@dataclasses.dataclass(frozen=True, eq=False)
class Truth:
    """All that is known of one video.

    Attributes:
      id: the video's id in the manifest.
      caption: what the manifest says of it.
      labels: object ids of every rendered frame; 0 is the background.
      objects: by id; their number is the count.
      events: in order of time.
      cuts: first frame after each cut.
      background: kind of background of each shot.
    """

    id: str
    caption: str
    labels: UInt16[np.ndarray, "t h w"]
    objects: tuple[TruthObject, ...]
    events: tuple[Event, ...]
    cuts: tuple[int, ...]
    background: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A scene with its place in a split."""

    id: str
    caption: str
    scene: Scene


def clips(split: Split, count: int, settings: WorldSettings, *, seed: int = 0) -> Iterator[Clip]:
    """Draws the scenes of a split, with captions that are unique in it and in no other split.

    The first clips of a longer split are those of a shorter one.

    Raises:
      ValueError: settings with too few captions for `count` clips.
    """
    taken: set[str] = set()
    for index in range(count):
        for draw in range(_DRAWS):
            rng = np.random.default_rng([seed, SPLITS.index(split), index, draw])
            scene = sample_scene(rng, settings)
            text = caption(scene)
            if split_of(scene) == split and text not in taken:
                break
        else:
            raise ValueError(
                f"no new {split} caption in {_DRAWS} draws after {index} clips; ask for fewer "
                "clips, or raise WorldSettings.max_objects"
            )
        taken.add(text)
        yield Clip(f"world-{seed}-{split}-{index:05d}", text, scene)


def write_split(
    directory: str | os.PathLike[str],
    split: Split,
    count: int,
    settings: WorldSettings | None = None,
    *,
    seed: int = 0,
    progress: bool = True,
) -> Path:
    """Writes `DIR/SPLIT` and returns the path of its manifest.

    What exists is kept: a second call with the same arguments only fills what is missing, and
    writes the same manifest. Every file appears whole or not at all.

    Args:
      directory: the folder of all splits, made where it does not exist.
      split: "train" or "test".
      count: number of videos.
      settings: of the world; the defaults where None.
      seed: another seed gives other videos.
      progress: show a bar.

    Raises:
      ValueError: the folder was made with other settings or another seed, an unknown split,
        or settings with too few captions for `count` clips.
    """
    settings = settings or WorldSettings()
    if split not in SPLITS or count < 0:
        raise ValueError(f"cannot write {count} clips of split {split!r}; splits: {SPLITS}")
    root = Path(directory) / split
    Path(directory).mkdir(parents=True, exist_ok=True)
    _claim(Path(directory), settings, seed)
    for folder in (root / "videos", root / "truth"):
        folder.mkdir(parents=True, exist_ok=True)
    lines = []
    drawn = clips(split, count, settings, seed=seed)
    for clip in tqdm(
        drawn,
        total=count,
        desc=f"world {split}",
        unit="clip",
        mininterval=1,
        disable=not progress,
    ):
        video, truth = root / "videos" / f"{clip.id}.mp4", root / "truth" / clip.id
        parts = (video, truth.with_suffix(".npz"), truth.with_suffix(".json"))
        if not all(part.exists() for part in parts):
            rendered = render(clip.scene, settings)
            _write_truth(truth, clip, rendered)
            quality = {"crf": settings.crf, "preset": "veryfast"}
            write_video(video, rendered.frames, fps=settings.fps, **quality)
        lines.append(
            {
                "id": clip.id,
                "path": f"videos/{video.name}",
                "captions": [clip.caption],
                "label": action(clip.scene.shots[0].acting()[0]),
                "truth": f"truth/{clip.id}",
            }
        )
    manifest = root / "manifest.jsonl"
    write_text(manifest, "".join(f"{json.dumps(line)}\n" for line in lines))
    return manifest


def load_truth(path: str | os.PathLike[str]) -> Truth:
    """Reads the truth of one video; `path` is its path with or without a suffix.

    Raises:
      FileNotFoundError: no such truth.
      ValueError: files that are not such a truth (the message names them).
    """
    path = Path(path)
    stem = path.with_suffix("") if path.suffix in (".npz", ".json") else path
    try:
        # NumPy leaves a file that it opened itself open where its end is missing.
        with (
            stem.with_name(f"{stem.name}.npz").open("rb") as file,
            np.load(file, allow_pickle=False) as arrays,
        ):
            labels = arrays["labels"]
        log = json.loads(stem.with_name(f"{stem.name}.json").read_text())
        return Truth(
            id=log["id"],
            caption=log["caption"],
            labels=labels,
            objects=tuple(TruthObject(**entry) for entry in log["objects"]),
            events=tuple(Event(**entry) for entry in log["events"]),
            cuts=tuple(log["cuts"]),
            background=tuple(log["background"]),
        )
    except (KeyError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{stem}.npz and .json are not a world's truth: {error}") from error


def _write_truth(stem: Path, clip: Clip, rendered: Rendered) -> None:
    seen = (rendered.visible() > 0).sum(0)
    objects = [
        TruthObject(spec.id, spec.colour, spec.shape, spec.size, int(seen[spec.id]))
        for spec in clip.scene.objects
    ]
    log = {
        "id": clip.id,
        "caption": clip.caption,
        "count": len(objects),
        "objects": [dataclasses.asdict(entry) for entry in objects],
        "events": [dataclasses.asdict(entry) for entry in events(clip.scene, rendered)],
        "cuts": list(clip.scene.cuts),
        "background": [shot.background.kind for shot in clip.scene.shots],
    }
    with replacing(stem.with_suffix(".npz")) as partial, partial.open("wb") as file:
        np.savez_compressed(file, labels=rendered.labels)
    write_text(stem.with_suffix(".json"), json.dumps(log, indent=1) + "\n")


def _claim(directory: Path, settings: WorldSettings, seed: int) -> None:
    """Writes the folder's settings.json, or checks that it holds the same."""
    wanted = {"format": FORMAT, "seed": seed, **dataclasses.asdict(settings)}
    wanted = json.loads(json.dumps(wanted))
    path = directory / "settings.json"
    if not path.exists():
        write_text(path, json.dumps(wanted, indent=1) + "\n")
        return
    try:
        # What is newer than the folder was then as it is by default.
        defaults = json.loads(json.dumps(dataclasses.asdict(WorldSettings())))
        found = defaults | dict(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(
            f"{path} is not a settings file ({error}); choose another folder"
        ) from error
    differing = differences(found, wanted)
    if differing:
        raise ValueError(
            f"{path} was written with other settings: {'; '.join(differing)}. "
            "Choose another folder, delete this one, or ask for the same settings"
        )
