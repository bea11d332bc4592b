"""Images of single objects, from which eyes learn before they see clips.

As in the paper, where images stand beside videos: an image takes an eighth of the work of a clip,
and is made much sooner. Among few clips that are read ten times over, whole pictures tell one from
another, and what an object looks like is not learned.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path

import cv2
from tqdm import tqdm

from benchmarks.parts.videollm_claim import claim
from benchmarks.parts.videollm_questions import facts, scenes
from tokenization.engines.protocol import Engine
from tokenization.extract import extract
from tokenization.files import replacing
from tokenization.manifest import Entry
from tokenization.world.captions import Split
from tokenization.world.render import render
from tokenization.world.scenes import WorldSettings
from trajvit_jax.demo.chain import DataSettings

_FRAMES = 4  # fewest of a scene: one of them is drawn for nothing else


def make_images(
    data: DataSettings, counts: Mapping[Split, int], *, folder: Path, engine: Engine | None = None
) -> None:
    """Images and their records, in FOLDER/images and FOLDER/records; keeps what is there.

    An image's caption says what its object is: "red circle".

    Args:
      data: of which world, and how they are cut.
      counts: images of each split.
      folder: of all.
      engine: where they are cut; None = processes of this machine.

    Raises:
      ValueError: the folder was made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = single(data.world)
    claim(folder / "made_with.json", {"world": dataclasses.asdict(world), "seed": data.seed})
    for split, count in counts.items():
        entries = []
        drawn = itertools.islice(scenes(split, world, seed=data.seed), count)
        bar = tqdm(drawn, f"images {split}", total=count, unit="image", mininterval=1)
        for number, scene in enumerate(bar):
            name = f"image-{data.seed}-{split}-{number:05d}"
            path = folder / "images" / split / f"{name}.png"
            if not path.is_file():
                pixels = render(scene, world).frames[_FRAMES // 2]
                with replacing(path) as partial:
                    partial.write_bytes(cv2.imencode(".png", pixels[:, :, ::-1])[1].tobytes())
            [fact] = facts(scene)
            entries.append(Entry(name, path.absolute(), captions=(fact.thing,)))
        extract(entries, folder / "records", data.extract, split=split, engine=engine)


def single(world: WorldSettings) -> WorldSettings:
    """The world of one object that is whole in every frame."""
    return dataclasses.replace(
        world, frames=_FRAMES, max_objects=1, cut_probability=0.0, in_sight=True
    )
