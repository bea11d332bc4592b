"""The whole chain on this machine, in minutes: clips, trajectories, two models, one report.

  1. renders a procedural world of captioned clips to H.264 files;
  2. cuts them into trajectories;
  3. trains TrajViT and ViT3D on the same clips for the same number of steps, and evaluates
     both on held-out clips;
  4. cuts some real clips into trajectories and writes report.html.

A second run keeps what is done. Examples, from the folder that holds configs/:
  python -m trajvit_jax.demo --output=runs/demo
  python -m trajvit_jax.demo --output=runs/longer --steps=600
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tokenization import interrupts
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


def make_records(config: str, *, world: Path, records: Path) -> dict[str, Summary]:
    """Steps 1 and 2: a folder of clips and one of records, each with splits train and test."""
    settings = configs.to_settings(DataSettings, configs.load(config))
    counts = {"train": settings.train, "test": settings.test}
    summaries = {}
    splits: tuple[Split, ...] = ("train", "test")
    for split in splits:
        _LOG.info("rendering %d clips: %s", counts[split], split)
        manifest = write_split(world, split, counts[split], settings.world, seed=settings.seed)
        entries = read_manifest(manifest)
        _LOG.info("cutting them into trajectories")
        summaries[split] = extract(entries, records, settings.extract, split=split)
    return summaries


def train_models(config: str, output: Path, seed: int, steps: int | None) -> list[ModelRow]:
    """Step 3: trains and evaluates every model; finished ones are only read."""
    rows = []
    for name in MODELS:
        arg = f"{config}:model={name},records={output / 'records'},seed={seed}"
        arg += f",steps={steps}" if steps else ""
        settings = configs.to_settings(ExperimentSettings, configs.load(arg))
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


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m trajvit_jax.demo",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=Path("runs/demo"), help="folder to fill")
    parser.add_argument("--config", default="configs/demo.py", help="experiment config")
    parser.add_argument(
        "--data-config", default="configs/tokenization/demo.py", help="world and extraction config"
    )
    parser.add_argument("--steps", type=int, default=None, help="training steps of each model")
    parser.add_argument("--seed", type=int, default=0, help="of the models")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    start = time.monotonic()
    try:
        configs.load(options.config)  # before the minutes that the clips take
        _LOG.info("1/4, 2/4: a world of captioned clips, cut into trajectories")
        summaries = make_records(
            options.data_config,
            world=options.output / "world",
            records=options.output / "records",
        )
        _LOG.info("3/4: training on them, then retrieval")
        rows = train_models(options.config, options.output, options.seed, options.steps)
        _LOG.info("4/4: cutting real clips into trajectories, writing the report")
        report = Report(
            rows=rows,
            train=summaries["train"],
            test=summaries["test"],
            real=real_items(),
            world=world_items(options.output),
        )
        path = write_report(options.output / "report.html", report)
    except KeyboardInterrupt:
        interrupts.leave("interrupted; run the same command again to go on")
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(report.table())
    print(f"\n{(time.monotonic() - start) / 60:.1f} minutes. Report: {path.resolve()}")
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; what is finished is kept")
    sys.exit(main())
