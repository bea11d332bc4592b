"""TrajViT against ViT3D on real clips with labels: probing and zero-shot, over seeds.

Extracts what is missing (clips below $TRAJVIT_TEST_DATA: 80 of Panda-70M in 8 categories, 1,323
exercises in 10 body parts; configs/tokenization/real_and_world.py), trains both models on the
training splits of both with the demo's model sizes, rates and steps (configs/real_and_world.py,
without the procedural world), and evaluates each on the held-out clips, as anybody would:

  classification  zero-shot by the classes' names
  probing         an attention-pooling head on frozen tokens; one view, more epochs and a higher
                  rate than the paper's, for there are few clips
  retrieval       captions find clips and back

Every result lies in its run's folder `evals`; the table is that of trajvit_jax.evals.report.
What is finished is kept: the same command goes on.

  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.labelled_clips --output=runs/labelled
  python -m benchmarks.labelled_clips --quick          # two steps, one seed, few clips; no verdict
"""

from __future__ import annotations

import collections
import dataclasses
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts import captioned_clips
from benchmarks.parts.arguments import count
from benchmarks.parts.command import parser_of, run_command, tell_bounds, write_json
from tokenization.files import write_text
from tokenization.records import open_records
from trajvit_jax import config as configs
from trajvit_jax.demo.chain import MODELS, DataSettings
from trajvit_jax.demo.page import TITLES
from trajvit_jax.evals import classification, command, differences, probing, retrieval
from trajvit_jax.evals.report import find_results, rows, table
from trajvit_jax.evals.results import Result, read_result
from trajvit_jax.experiment import ExperimentSettings
from trajvit_jax.train import train

DATA = "configs/tokenization/real_and_world.py"
CONFIG = "configs/real_and_world.py"
EPOCHS, RATE = 100, 1e-3
SHOWN = ("top1", "class_mean", "chance_top1", "txt2vid_r5", "vid2txt_r5")
LEGEND = (
    "Over seeds: mean (95% interval, the mean of the seeds'; lowest and highest seed).",
    "Probing: its heads saw the training clips' labels; the encoders never saw a label.",
)
_LOG = logging.getLogger("trajvit_jax.benchmarks")


def train_model(model: str, seed: int, output: Path, steps: int, batch: int) -> Path:
    """The workdir of a finished run."""
    config = (
        f"{CONFIG}:records={output / 'records'},world=0.0,model={model},seed={seed},"
        f"steps={steps},batch={batch}"
    )
    settings = configs.to_settings(ExperimentSettings, configs.load(config))
    # Only the end is evaluated: by the commands, not by the run.
    settings = dataclasses.replace(settings, evaluate_every=0)
    workdir = output / f"{model}-seed{seed}"
    _LOG.info("%s, seed %d: %d steps", TITLES[model], seed, steps)
    train(settings, workdir)
    return workdir


def evaluate(workdir: Path, records: Path, *, epochs: int) -> list[Result]:
    """All protocols on one set of clips; what is there already is read."""
    common = {"dataset": records.name, "batch": 32}
    jobs = (
        (
            classification.PROTOCOL,
            classification.ClassificationSettings(**common, prompts="none"),
        ),
        (
            probing.PROTOCOL,
            probing.ProbingSettings(
                **common,
                classes=str(class_list(records)),
                views=1,
                epochs=epochs,
                learning_rate=RATE,
                size=32,
            ),
        ),
        (retrieval.PROTOCOL, retrieval.RetrievalSettings(**common)),
    )
    found = []
    for protocol, settings in jobs:
        path = workdir / "evals" / f"{protocol.name}-{records.name}.json"
        if not path.is_file():
            command.evaluate(protocol, settings, workdir=str(workdir), records=str(records)).write(
                path
            )
        found.append(read_result(path))
    return found


def class_list(records: Path) -> Path:
    """A file of all classes of a set of clips; some of few clips are held out alone."""
    labels = {one.label for split in ("train", "test") for one in open_records(records, split)}
    path = records.with_name(f"{records.name}.classes.txt")
    write_text(path, "\n".join(sorted(filter(None, labels))) + "\n")
    return path


def largest_class(records: Path) -> float:
    """What always saying the most frequent class of the held-out clips is right in, in percent."""
    counts = collections.Counter(record.label for record in open_records(records, "test"))
    return 100 * max(counts.values()) / sum(counts.values())


def verdict(results: Sequence[Result], shares: dict[str, float]) -> dict[str, bool]:
    """What the runs were to show, and whether they did."""
    said = {}
    for one in results:
        if one.protocol != "probing" or one.dataset != "exercises":
            continue
        low = one.metrics["top1"].low
        name = (
            f"{TITLES[one.model]}, seed {one.train_seed}: probing of {one.dataset} above its "
            f"largest class ({shares[one.dataset]:.1f}%)"
        )
        said[name] = low is not None and low > shares[one.dataset]
    return said


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 0 if its bounds hold or it was quick, 1 if not, 2 without clips."""
    parser = parser_of(__file__, __doc__, quick="few clips, two steps; no verdict")
    parser.add_argument("--output", type=Path, help="folder to fill (runs/labelled)")
    parser.add_argument(
        "--steps", type=count, default=200, help="of each training (200, the demo's)"
    )
    parser.add_argument("--batch", type=count, default=32, help="clips of a step (32)")
    parser.add_argument("--seeds", type=count, default=3, help="trainings of each model (3)")
    options = parser.parse_args(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    clips = captioned_clips.folder()
    if clips is None:
        print(captioned_clips.MISSING, file=sys.stderr)
        return 2
    output = options.output or Path("runs") / ("labelled_quick" if options.quick else "labelled")
    steps, batch, seeds, epochs = options.steps, options.batch, options.seeds, EPOCHS
    if options.quick:
        steps, batch, seeds, epochs = 2, 16, 1, 2
    extraction = configs.to_settings(DataSettings, configs.load(DATA)).extract
    most = 24 if options.quick else None
    captioned_clips.make_records(clips, output / "records", extraction, most=most)
    results: list[Result] = []
    workdirs = []
    for seed in range(seeds):
        for model in MODELS:
            workdirs.append(train_model(model, seed, output, steps, batch))
            for name in captioned_clips.GROUPS:
                results += evaluate(workdirs[-1], output / "records" / name, epochs=epochs)
    made = [row for row in rows(find_results(map(str, workdirs))) if row["metric"] in SHOWN]
    shares = {name: largest_class(output / "records" / name) for name in captioned_clips.GROUPS}
    said = ", ".join(f"{name} {share:.1f}%" for name, share in shares.items())
    print("\n".join([table(made), "", *LEGEND, f"Largest class of the held-out clips: {said}."]))
    apart = [one for one in differences.differences(results) if one.metric in SHOWN]
    print(f"\n{differences.table(apart)}")
    write_json(options.json, made)
    if options.quick:
        print("two steps teach nothing: the verdict needs the full run")
        return 0
    bounds = verdict(results, shares)
    return tell_bounds(bounds)


if __name__ == "__main__":
    run_command(main, resumes=True)
