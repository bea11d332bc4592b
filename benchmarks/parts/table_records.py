"""Records of the comparison and of the ablations: made once, shared by all rows.

OUTPUT/world                     clips of the procedural world, with their truth
OUTPUT/records/VARIANT/SOURCE    records of every source, cut as the variant says
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

from benchmarks.parts import captioned_clips
from benchmarks.parts.table_truth import SPOILT, Spoiling, TruthTokenizer
from tokenization.engines.inline import InlineEngine
from tokenization.extract import Summary, extract
from tokenization.folder_lock import held
from tokenization.manifest import read_manifest
from tokenization.pipeline import PipelineSettings
from tokenization.world.dataset import write_split
from trajvit_jax import config as configs
from trajvit_jax.demo.chain import DataSettings

WORLD = "world"
CONFIG = "configs/tokenization/comparison.py"
# Of --quick, whose batch of 16 takes up to 8 clips of a set and may take all of the world.
QUICK = ",train=16,test=4"
_FEW = 8


def make_world(settings: DataSettings, output: Path) -> dict[str, Path]:
    """Renders the world's clips; the manifest of each split."""
    counts = {"train": settings.train, "test": settings.test}
    return {
        split: write_split(output / WORLD, split, counts[split], settings.world, seed=settings.seed)
        for split in captioned_clips.SPLITS
    }


def make_records(
    output: Path, variant: str, clips: Path | None, *, quick: bool = False
) -> dict[str, dict[str, Summary]]:
    """Makes what is missing of a variant's records; what there is, by source and split.

    Where another process makes some, it waits.

    Args:
      output: folder of all.
      variant: of configs/tokenization/comparison.py, or of `table_truth.SPOILT`: those have the
        world alone, whose truth is known.
      clips: folder of the real captioned clips; None = the world alone.
      quick: few clips.
    """
    with held(output / ".records.lock"):
        return _make_records(output, variant, clips, quick=quick)


def _make_records(
    output: Path, variant: str, clips: Path | None, *, quick: bool
) -> dict[str, dict[str, Summary]]:
    settings, folder = _settings(variant, quick=quick), output / "records" / variant
    made = {}
    # Few clips take less time than processes take to start.
    engine = InlineEngine() if quick else None
    if clips is not None and variant not in SPOILT:
        made = captioned_clips.make_records(
            clips, folder, settings.extract, most=_FEW if quick else None, engine=engine
        )
    build = None
    if variant in SPOILT:
        build = functools.partial(_truth, output / WORLD, SPOILT[variant])
    made[WORLD] = {
        split: extract(
            read_manifest(manifest),
            folder / WORLD,
            settings.extract,
            split=split,
            build=build,
            engine=engine,
        )
        for split, manifest in make_world(settings, output).items()
    }
    return made


def _truth(world: Path, spoiling: Spoiling, _: PipelineSettings) -> TruthTokenizer:
    return TruthTokenizer(world, spoiling)


def _settings(variant: str, *, quick: bool) -> DataSettings:
    few = QUICK if quick else ""
    cut = "trajectories" if variant in SPOILT else variant
    return configs.to_settings(DataSettings, configs.load(f"{CONFIG}:variant={cut}{few}"))


def made_of(variant: str, *, quick: bool = False) -> dict[str, Any]:
    """What decides a variant's records, as settings that JSON can hold."""
    settings = configs.changed(_settings(variant, quick=quick))
    if variant in SPOILT:
        settings["spoilt"] = dataclasses.asdict(SPOILT[variant])
    return settings
