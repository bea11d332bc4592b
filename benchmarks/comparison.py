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
  python -m benchmarks.comparison --quick                           # two steps of each model

Without TRAJVIT_TEST_DATA models train on the world alone, which makes other rows.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import captioned_clips, table_costs, table_records
from benchmarks.arguments import count
from benchmarks.table_rows import Ledger, Row, unfinished
from benchmarks.table_runs import Trained, train_rows
from benchmarks.table_text import SOURCES, Line, curves, lines_of, replace_block, table
from tokenization import interrupts
from tokenization.files import write_text
from trajvit_jax.demo.page import TITLES
from trajvit_jax.models.settings import check_choice
from trajvit_jax.run.provenance import commit

SEEDS = 3
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
LIKE = ("trajvit", "trajvit_wide")
_VARIANTS = {name: name for name in ("segmentation_only", "tracking_only")}
_LOG = logging.getLogger("trajvit_jax.benchmarks")


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
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="two steps of each model, few clips")
    parser.add_argument(
        "--models", default=",".join(DEFAULT), help=f"to train, of {','.join(MODELS)}"
    )
    parser.add_argument("--seeds", type=count, default=SEEDS, help="0 to this, less one (3)")
    parser.add_argument("--steps", type=count, help="of each run; other steps are other rows")
    parser.add_argument("--output", type=Path, help="of clips, records, runs (runs/comparison)")
    parser.add_argument("--rows", type=Path, default=Path("docs/comparison.jsonl"))
    parser.add_argument("--page", type=Path, default=Path("docs/COMPARISON.md"))
    parser.add_argument("--table", action="store_true", help="train nothing")
    parser.add_argument("--costs", action="store_true", help="time the steps instead of training")
    parser.add_argument("--rounds", type=count, default=5, help="of --costs")
    parser.add_argument("--json", type=Path, help="also write the table's numbers here")
    options = parser.parse_args(arguments)
    options.models = options.models.split(",")
    for name in options.models:
        try:
            check_choice("--models", name, tuple(MODELS))
        except ValueError as error:
            parser.error(str(error))
    return options


def run(options: argparse.Namespace, output: Path) -> tuple[list[Line], Trained]:
    """What `main` does; the table's lines, and what was trained."""
    code = commit()  # what is imported by now; others may change the files meanwhile
    clips, seeds = captioned_clips.folder(), range(1 if options.quick else options.seeds)
    if clips is None:
        _LOG.warning("%s", captioned_clips.MISSING)
    trained = Trained()

    def named(models: Sequence[str]) -> list[Row]:
        return rows(
            models,
            output,
            real=clips is not None or options.table,
            steps=2 if options.quick else options.steps,
            quick=options.quick,
        )

    chosen = named(options.models)
    costs = options.rows.with_name(f"{options.rows.stem}_costs.json")
    if not options.table:
        left = {row.name for row, _ in unfinished(Ledger(options.rows), chosen, seeds)}
        needed = [name for name in options.models if options.costs or name in left]
        for variant in dict.fromkeys(_VARIANTS.get(name, "trajectories") for name in needed):
            table_records.make_records(output, variant, clips, quick=options.quick)
    if options.costs:
        found = table_costs.measure(chosen, output, options.rounds, code=code)
        table_costs.write_costs(costs, found)
    elif not options.table:
        trained = train_rows(chosen, seeds, options.rows, output, code=code)
        trained.tell()
    return lines_of(
        named(list(MODELS)),
        MODELS,
        range(max(options.seeds, SEEDS)),
        Ledger(options.rows),
        table_costs.read_costs(costs),
        reference="trajvit",
        like=LIKE,
    ), trained


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if it went well."""
    options = parse(arguments)
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    try:
        if options.quick:
            with tempfile.TemporaryDirectory() as folder:
                options.rows = Path(folder, "rows.jsonl")
                found, trained = run(options, options.output or Path(folder))
        else:
            found, trained = run(options, options.output or Path("runs/comparison"))
            if (options.table or captioned_clips.folder()) and options.steps is None:
                replace_block(options.page, "comparison", table(found))
                replace_block(options.page, "curves", curves(found))
            else:
                _LOG.warning("rows of other steps or data: %s stays as it is", options.page)
    except KeyboardInterrupt as error:
        code = interrupts.exit_code(error)
        interrupts.leave("interrupted; run the same command again to go on", code)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(table(found), curves(found), sep="\n\n")
    if options.json:
        write_text(options.json, json.dumps([dataclasses.asdict(one) for one in found]) + "\n")
    if options.quick:
        print("two steps teach nothing: the table needs the full run")
    return 1 if trained.failed else 0


if __name__ == "__main__":
    interrupts.install("stopping; finished rows are kept", preemption=True)
    sys.exit(main())
