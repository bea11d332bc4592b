"""The demo's steps: a world of clips, their trajectories, two models, and what the report shows."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

from tokenization.engines.protocol import Engine
from tokenization.explore.items import Item
from tokenization.extract import ExtractSettings, Summary, extract
from tokenization.manifest import read_manifest
from tokenization.pipeline import build
from tokenization.video import decode
from tokenization.world.captions import Split
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax import config as configs
from trajvit_jax.data.source import open_records
from trajvit_jax.demo import clips
from trajvit_jax.demo.page import TITLES, read_metric
from trajvit_jax.demo.report import ModelRow, Report, write_report
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.models.flops import count_forward
from trajvit_jax.train import train

MODELS = ("trajvit", "vit3d")

_LOG = logging.getLogger("trajvit_jax.demo")


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """What the data config holds.

    Attributes:
      train: clips to train on.
      test: held-out clips.
      seed: of the world.
      world: what clips look like.
      extract: how they become records.
    """

    train: int
    test: int
    seed: int
    world: WorldSettings
    extract: ExtractSettings


def make_records(
    config: str, *, world: Path, records: Path, engine: Engine | None = None
) -> dict[str, Summary]:
    """Steps 1 and 2: a folder of clips and one of records, each with splits train and test.

    Args:
      config: of the data.
      world: folder of the clips.
      records: folder of their records.
      engine: where they are made; None = processes of this machine.
    """
    settings = configs.to_settings(DataSettings, configs.load(config))
    counts = {"train": settings.train, "test": settings.test}
    summaries = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        _LOG.info("rendering %d clips: %s", counts[split], split)
        manifest = write_split(world, split, counts[split], settings.world, seed=settings.seed)
        entries = read_manifest(manifest)
        _LOG.info("cutting them into trajectories")
        summaries[split] = extract(entries, records, settings.extract, split=split, engine=engine)
    return summaries


def settings_of(
    config: str, name: str, output: Path, seed: int, steps: int | None
) -> ExperimentSettings:
    """The experiment of a model.

    Raises:
      ValueError, FileNotFoundError: a config that has no such experiment.
    """
    arg = f"{config}:model={name},records={output / 'records'},seed={seed}"
    arg += f",steps={steps}" if steps else ""
    return configs.to_settings(ExperimentSettings, configs.load(arg))


def train_models(config: str, output: Path, seed: int, steps: int | None) -> list[ModelRow]:
    """Step 3: trains and evaluates every model; finished ones are only read."""
    rows = []
    for name in MODELS:
        settings = settings_of(config, name, output, seed, steps)
        workdir = output / f"{name}-seed{seed}"
        _LOG.info("%s: %d steps", TITLES[name], settings.steps)
        results = train(settings, workdir)
        held_out = open_records(settings.data.train, settings.data.eval_split)
        tokens = clips.count_tokens(held_out, settings.model)
        rows.append(
            ModelRow(
                name=name,
                results=results,
                cost=count_forward(settings.model),
                tokens=tokens.mean,
                dropped=tokens.dropped,
                steps=settings.steps,
                batch=settings.data.batch,
                losses=read_metric(workdir, "loss"),
            )
        )
    return rows


def real_items(side: int = 448) -> list[Item]:
    """Real clips with their trajectories, by the default tokenizer."""
    pipeline = build()
    items = []
    for path in clips.real_clips():
        frames = decode(path, frames=16, max_side=side, video_id=path.stem)
        items.append(Item(frames.rgb, pipeline.tokenize(frames), (clips.CREDITS[path.stem],)))
    return items


def world_items(output: Path, count: int = 3) -> list[Item]:
    """Some held-out clips of the world, from their records."""
    source = open_records(output / "records", "test")
    records = [source[index] for index in range(min(count, len(source)))]
    return [Item(record.frames, record.trajectories, record.captions) for record in records]


def run(
    *, output: Path, config: str, data_config: str, seed: int = 0, steps: int | None = None
) -> tuple[Report, Path]:
    """The whole chain; what is done already is kept.

    Args:
      output: folder to fill.
      config: of the experiments.
      data_config: of the world and its extraction.
      seed: of the models.
      steps: of each training; None = as the config says.

    Returns:
      What the report shows, and its page.

    Raises:
      ValueError, OSError, FloatingPointError: as the steps say.
    """
    for name in MODELS:  # before the minutes that the clips take
        settings_of(config, name, output, seed, steps)
    _LOG.info("1/4, 2/4: a world of captioned clips, cut into trajectories")
    summaries = make_records(data_config, world=output / "world", records=output / "records")
    _LOG.info("3/4: training on them, then retrieval")
    rows = train_models(config, output, seed, steps)
    _LOG.info("4/4: cutting real clips into trajectories, writing the report")
    report = Report(
        rows=rows,
        train=summaries["train"],
        test=summaries["test"],
        real=real_items(),
        world=world_items(output),
    )
    return report, write_report(output / "report.html", report)
