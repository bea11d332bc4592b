"""Every model of the paper's tables, trained alike on real captioned clips and the world.

Makes the records (once), trains every model with every seed for the same steps on the same data
(configs/comparison.py), ranks held-out clips and captions, and writes the table into
docs/COMPARISON.md. Finished rows are kept in docs/comparison.jsonl, with the ranks of all queries,
and not trained again; an interrupted one goes on. The table needs nothing but these rows, and is
of all that are finished, whatever was trained. A row that fails does not keep others from being
trained; the exit code is then 1.

  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.comparison
  python -m benchmarks.comparison --models=trajvit,vit3d --seeds=1  # some rows
  python -m benchmarks.comparison --costs                           # time and memory of a step
  python -m benchmarks.comparison --table                           # the table alone
  python -m benchmarks.comparison --quick                           # two steps of two models

Without TRAJVIT_TEST_DATA models train on the world alone, which makes other rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.parts import captioned_clips, table_command, table_costs, table_records
from benchmarks.parts.arguments import count, some_of
from benchmarks.parts.command import run_command
from benchmarks.parts.kept_measures import add_measures, read_measures
from benchmarks.parts.table_command import SEEDS, Told, finish, kind_of_rows, seeds_of
from benchmarks.parts.table_costs import StepCost
from benchmarks.parts.table_rows import Ledger, Row, unfinished
from benchmarks.parts.table_runs import Trained, train_rows
from benchmarks.parts.table_text import SOURCES, curves, lines_of, table
from trajvit_jax.demo.page import TITLES
from trajvit_jax.run.provenance import commit

CONFIG = "configs/comparison.py"
_PAPER = {name: title for name, title in TITLES.items() if name != "vit"}
_OWN = {
    # TrajViT at about the FLOPs of the models that read patches; AutoMerge with as many tokens as
    # TrajViT, which is only trained if it is named.
    "trajvit_wide": ("TrajViT, ResNet twice as wide", "model=trajvit,width=2"),
    "automerge16": ("AutoMerge, 16 tokens", "model=automerge,tokens=16"),
}
MODELS = _PAPER | {name: title for name, (title, _) in _OWN.items()}
DEFAULT = tuple(name for name in MODELS if name != "automerge16")
QUICK = ("trajvit", "vit3d")
LIKE = ("trajvit", "trajvit_wide")
_VARIANTS = {name: name for name in ("segmentation_only", "tracking_only")}


def rows(
    models: Sequence[str],
    output: Path,
    *,
    real: bool,
    steps: int | None = None,
    quick: bool = False,
) -> list[Row]:
    """The rows of the table.

    Args:
      models: names of `MODELS`.
      output: folder of the records.
      real: whether there are real clips, or the world alone.
      steps: of each run; None = the config's.
      quick: of few clips and small batches.
    """
    return [
        table_row(
            name,
            _OWN[name][1] if name in _OWN else f"model={name}",
            _VARIANTS.get(name, "trajectories"),
            output,
            sources=SOURCES if real else ("world",),
            steps=steps,
            quick=quick,
        )
        for name in models
    ]


def table_row(
    name: str,
    arguments: str,
    variant: str,
    output: Path,
    *,
    sources: Sequence[str],
    steps: int | None,
    quick: bool,
) -> Row:
    """A row of configs/comparison.py on a variant of the records."""
    said = [arguments, f"records={output / 'records'}"]
    said += [f"{source}=0.0" for source in SOURCES if source not in sources]
    said += [f"variant={variant}"]
    said += [f"steps={steps}"] if steps else []
    said += ["batch=16"] if quick else []
    return Row(name, f"{CONFIG}:{','.join(said)}", table_records.made_of(variant, quick=quick))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = table_command.parser_of(
        __file__, __doc__, quick="two steps of some models, few clips", page="docs/COMPARISON.md"
    )
    names = ",".join(MODELS)
    parser.add_argument(
        "--models",
        type=some_of(MODELS),
        help=f"to train, of {names} (all but automerge16; {' and '.join(QUICK)} with --quick)",
    )
    parser.add_argument("--costs", action="store_true", help="time the steps instead of training")
    parser.add_argument("--rounds", type=count, default=5, help="of --costs (5)")
    options = parser.parse_args(arguments)
    options.models = options.models or (QUICK if options.quick else DEFAULT)
    if options.costs and (options.made or options.table):
        parser.error("--costs makes records and measures, on this machine: give it alone")
    return options


def run(options: argparse.Namespace, output: Path) -> Told:
    """What `main` does."""
    code = commit()  # what is imported by now; others may change the files meanwhile
    trained, seeds, how = Trained(), seeds_of(options), kind_of_rows(options)
    chosen = rows(options.models, output, **how)
    costs = table_costs.path_beside(options.ledger)
    if not options.table and not options.made:
        left = {row.name for row, _ in unfinished(Ledger(options.ledger), chosen, seeds)}
        needed = [name for name in options.models if options.costs or name in left]
        clips = captioned_clips.folder()
        for variant in dict.fromkeys(_VARIANTS.get(name, "trajectories") for name in needed):
            table_records.make_records(output, variant, clips, quick=options.quick)
    if options.costs:
        found = table_costs.measure(chosen, output, options.rounds, code=code)
        add_measures(costs, found, StepCost)
    elif not options.table:
        trained = train_rows(chosen, seeds, options.ledger, output, code=code)
        trained.tell()
    lines = lines_of(
        rows(list(MODELS), output, **how),
        MODELS,
        range(max(options.seeds, SEEDS)),
        Ledger(options.ledger),
        read_measures(costs, StepCost),
        reference="trajvit",
        like=LIKE,
    )
    blocks = {"comparison": table(lines), "curves": curves(lines)}
    return Told(blocks, [dataclasses.asdict(one) for one in lines], trained)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if it went well."""
    return finish(parse(arguments), run)


if __name__ == "__main__":
    run_command(main, resumes="--quick" not in sys.argv)
