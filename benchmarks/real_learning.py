"""Real clips and the procedural world train together from scratch: does anything carry over?

Extracts what is missing (real captioned clips below $TRAJVIT_TEST_DATA, and the world), trains
TrajViT and ViT3D on the mixture of configs/real_and_world.py, evaluates retrieval among clips of
each source that were held out and among as many that were trained on, prints the table and writes
`report.html`. What is finished is kept: the same command goes on. See docs/REAL_LEARNING.md.

  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.real_learning --output=runs/real
  python -m benchmarks.real_learning --quick      # two steps; without the folder, of the world
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import math
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
from tqdm import tqdm

from benchmarks.parts import captioned_clips
from benchmarks.parts.arguments import count_or_none
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from benchmarks.parts.recall_scores import Score, scores
from tokenization.explore.items import Item
from tokenization.explore.page import render_fragment
from tokenization.extract import Summary
from trajvit_jax import config as configs
from trajvit_jax.data.samples import same_text
from trajvit_jax.data.source import Record, open_records
from trajvit_jax.demo.chain import MODELS, DataSettings
from trajvit_jax.demo.chain import make_records as make_world
from trajvit_jax.demo.page import (
    TITLES,
    html_table,
    line_chart,
    read_metric,
    text_table,
    write_page,
)
from trajvit_jax.evals.loaded import load
from trajvit_jax.evals.retrieval import Comparison, compare
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.metrics import retrieval_ranks
from trajvit_jax.train import train

WORLD = "world"
SHOWN = 3  # held-out clips of each source on the page
LEGEND = (
    "R@k: percent of the queries whose match is among the first k, with its 95% interval "
    "(Wilson's score; queries counted as independent)",
    "chance: R@1 / R@5 / R@10 of a random order",
    "txt2vid: captions find videos; equal captions are one query",
)
_LOG = logging.getLogger("trajvit_jax.benchmarks")


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """A model after its run.

    Attributes:
      settings: of the run.
      workdir: of the run.
      results: of `trajvit_jax.train.train`.
      held_out: source -> its held-out clips against their captions.
      scores: of all sources and both splits.
    """

    settings: ExperimentSettings
    workdir: Path
    results: Mapping[str, float]
    held_out: Mapping[str, Comparison]
    scores: Sequence[Score]

    @property
    def name(self) -> str:
        """Of the model."""
        return self.settings.model.name


def make_records(
    config: str, output: Path, clips: Path | None, *, most: int | None
) -> dict[str, dict[str, Summary]]:
    """Records of every source below `output/records`; of the world alone without real clips."""
    made = {}
    records = output / "records"
    if clips is not None:
        extraction = configs.to_settings(DataSettings, configs.load(config)).extract
        made = captioned_clips.make_records(clips, records, extraction, most=most)
    return made | {WORLD: make_world(config, world=output / WORLD, records=records / WORLD)}


def train_and_score(config: str, output: Path, sources: Sequence[str]) -> Trained:
    """Trains one model, or reads its finished run, and evaluates it on every source.

    Args:
      config: with its arguments.
      output: folder of the runs.
      sources: names of the folders of records, in the order of the config.

    Raises:
      ValueError: a run of other settings lies there, or records that cannot be used.
    """
    settings = configs.to_settings(ExperimentSettings, configs.load(config))
    name = settings.model.name
    workdir = output / f"{name}-seed{settings.seed}"
    _LOG.info("training %s: %d steps", TITLES[name], settings.steps)
    results = train(settings, workdir)
    loaded, batch = load(workdir), settings.data.eval_batch
    rows: list[Score] = []
    held_out = {}
    folders = zip(sources, settings.data.train_sources, strict=True)
    for source, folder in tqdm(list(folders), desc=f"evaluate {name}", unit="source"):
        test = open_records(folder.path, settings.data.eval_split)
        trained_on = open_records(folder.path, folder.split)[: len(test)]
        for split, records in (("test", test), ("train", trained_on)):
            compared = compare(loaded.model, records, loaded.words(), batch=batch)
            if compared.bad:
                raise ValueError(
                    f"{folder.path}: {len(compared.bad)} records cannot be used; remove the "
                    "folder and run again"
                )
            rows += scores(compared, name, source, split)
            if split == "test":
                held_out[source] = compared
    return Trained(settings, workdir, results, held_out, rows)


def table(runs: Sequence[Trained]) -> list[dict[str, str]]:
    """The models side by side: held-out clips first."""
    rows = [row for run in runs for row in run.scores]
    rows.sort(key=lambda row: (row.split != "test", row.source, row.way, row.model))
    return [row.cells() for row in rows]


def protocol(runs: Sequence[Trained], made: Mapping[str, Mapping[str, Summary]]) -> str:
    """How the numbers came about."""
    settings = runs[0].settings
    clips = "; ".join(
        f"{source}: {of['train'].videos} to train on, {of['test'].videos} held out"
        for source, of in made.items()
    )
    shares = ", ".join(
        f"{Path(source.path).name} {source.weight:g}" for source in settings.data.train_sources
    )
    seconds = ", ".join(f"{TITLES[run.name]} {run.results['seconds_a_step']:.2f}" for run in runs)
    return (
        f"{clips}. {settings.steps} steps of {batch_of(settings)} clips, in the shares {shares}; "
        f"seed {settings.seed}; {jax.device_count()} {jax.default_backend()} device; seconds a "
        f"step (median): {seconds}."
    )


def batch_of(settings: ExperimentSettings) -> int:
    """Clips of a step."""
    return sum(stream.batch for stream in settings.data.train_streams(settings.model.frames))


def found_for(
    runs: Sequence[Trained], sources: Mapping[str, Sequence[Record]]
) -> list[dict[str, str]]:
    """For the first held-out clips of each source: what each model found, as table rows."""
    rows = []
    for source, records in sources.items():
        for number, record in enumerate(records):
            row = {"source": source, "its caption": record.captions[0]}
            for run in runs:
                compared = run.held_out[source]
                first = compared.texts[int(compared.similarity[number].argmax())]
                own = compared.similarity[number : number + 1], compared.positives[number][None]
                rank = f"{retrieval_ranks(*own)[0] + 1:g} of {len(compared.texts)}"
                right = first == same_text(record.captions[0])
                row[f"{TITLES[run.name]} finds"] = "the same" if right else first
                row[f"rank by {TITLES[run.name]}"] = rank
            rows.append(row)
    return rows


def write_report(
    path: Path, runs: Sequence[Trained], made: Mapping[str, Mapping[str, Summary]]
) -> Path:
    """The page: table, curves, and some held-out clips."""
    settings = runs[0].settings
    shown = {
        source: open_records(folder.path, settings.data.eval_split)[:SHOWN]
        for source, folder in zip(made, settings.data.train_sources, strict=True)
    }
    items = [
        Item(record.frames, record.trajectories, record.captions)
        for records in shown.values()
        for record in records
    ]
    followed = Path(settings.data.evaluation_folder).name
    page = Path(__file__).parent / "parts/real_learning_page.html"
    body = string.Template(page.read_text("utf-8")).substitute(
        table=html_table(table(runs)),
        legend="<br>".join(LEGEND),
        protocol=protocol(runs, made),
        losses=line_chart(
            {run.name: read_metric(run.workdir, "loss") for run in runs}, "Training loss"
        ),
        batch=batch_of(settings),
        blind=f"{math.log(batch_of(settings)):.2f}",
        recalls=line_chart(
            {run.name: read_metric(run.workdir, "eval/txt2vid_r5") for run in runs}, "Recall"
        ),
        followed=f"{made[followed]['test'].videos} clips of {followed}",
        found=html_table(found_for(runs, shown)),
        clips=render_fragment(items),
        extraction="\n\n".join(
            f"{source}, {split}: {summary}"
            for source, of in made.items()
            for split, summary in of.items()
        ),
    )
    return write_page(
        path,
        title="trajvit_jax: learning from real clips",
        heading="Real clips and the procedural world, trained together from scratch",
        body=body,
    )


def verdict(runs: Sequence[Trained], made: Mapping[str, Mapping[str, Summary]]) -> dict[str, bool]:
    """What the run was to show, and whether it did: for sources of at least 100 held-out clips."""
    return {
        f"{TITLES[run.name]}, {source}: held-out R@5 above chance, both ways": all(
            recall.above_chance
            for row in run.scores
            if (row.source, row.split) == (source, "test")
            for recall in row.recalls
            if recall.k == 5
        )
        for run in runs
        for source, of in made.items()
        if of["test"].videos >= 100
    }


def with_arguments(config: str, *arguments: str) -> str:
    """The path of a config with more arguments behind it."""
    return f"{config}{',' if ':' in config else ':'}{','.join(arguments)}"


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = parser_of(__file__, __doc__, quick="few clips, two steps; no verdict")
    parser.add_argument("--output", type=Path, help="folder to fill (runs/real)")
    parser.add_argument(
        "--config",
        default="configs/real_and_world.py",
        help="with arguments, as in FILE:steps=1600",
    )
    parser.add_argument(
        "--data_config",
        default="configs/tokenization/real_and_world.py",
        help="of the world and of extraction, with arguments",
    )
    parser.add_argument("--seed", type=count_or_none, default=0, help="of the models")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 if its bounds hold or it was quick, 1 if not, 2 without real clips."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    clips = captioned_clips.folder()
    if clips is None:
        print(f"{captioned_clips.MISSING}; --quick runs on the world alone", file=sys.stderr)
        if not options.quick:
            return 2
    output = options.output or Path("runs") / ("real_quick" if options.quick else "real")
    data, config = options.data_config, options.config
    config = with_arguments(config, f"records={output / 'records'}", f"seed={options.seed}")
    if options.quick:
        data = with_arguments(data, "train=32", "test=16")
        config = with_arguments(config, "steps=2", "batch=16")
    if clips is None:
        config = with_arguments(config, *(f"{name}=0.0" for name in captioned_clips.GROUPS))
    made = make_records(data, output, clips, most=16 if options.quick else None)
    runs = [
        train_and_score(with_arguments(config, f"model={name}"), output, list(made))
        for name in MODELS
    ]
    report = write_report(output / "report.html", runs, made)
    print("\n".join([text_table(table(runs)), "", *LEGEND, "", protocol(runs, made)]))
    print(f"report: {report.resolve()}")
    write_json(options.json, [dataclasses.asdict(row) for run in runs for row in run.scores])
    if options.quick:
        print("two steps teach nothing: the verdict needs the full run")
        return 0
    bounds = verdict(runs, made)
    return tell_bounds(bounds)


if __name__ == "__main__":
    run_command(main, resumes=True)
