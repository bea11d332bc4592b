"""Every row of the paper's Tables 5 and 6, and how much depends on good trajectories.

All rows train as in benchmarks.comparison, whose engine, records and finished rows this shares:
configs/comparison.py, three seeds. One table has both of the paper's, on real clips and the world;
the other is of the world alone, whose true trajectories are known: the same model on these, on
those of the built-in tokenizer, and on true ones that were spoilt on purpose. Writes
docs/ABLATIONS.md.

  TRAJVIT_TEST_DATA=FOLDER python -m benchmarks.ablations
  python -m benchmarks.ablations --rows=trajvit,mean,queries4     # some rows
  python -m benchmarks.ablations --table                          # the tables alone
  python -m benchmarks.ablations --quick                          # two steps of some rows

At the paper's size, on Panda-70M: configs/ablation880k.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.comparison import MODELS, table_row
from benchmarks.parts import captioned_clips, table_command, table_records
from benchmarks.parts.arguments import some_of
from benchmarks.parts.command import run_command
from benchmarks.parts.kept_measures import add_measures, read_measures
from benchmarks.parts.paired import rank_correlation
from benchmarks.parts.table_command import SEEDS, Told, finish, kind_of_rows, seeds_of
from benchmarks.parts.table_rows import Ledger, Row, unfinished
from benchmarks.parts.table_runs import Trained, train_rows
from benchmarks.parts.table_text import SOURCES, Line, lines_of, table
from benchmarks.parts.table_truth import TrackingError, tracking_error
from tokenization.manifest import read_manifest
from trajvit_jax.data.source import open_records
from trajvit_jax.run.provenance import commit


@dataclasses.dataclass(frozen=True)
class Ablation:
    """A row of the first table, which has the paper's Tables 5 and 6, or of the last one.

    Attributes:
      table: which the paper has it in, '5', '6' or '5, 6'; '-' in none; 'trajectories', of the
        last table.
      title: what the table says.
      arguments: of configs/comparison.py.
      variant: of the records.
    """

    table: str
    title: str
    arguments: str = "model=trajvit"
    variant: str = "trajectories"


_TABLE_5 = ("vit3d", "segmentation_only", "tracking_only")
ABLATIONS: Mapping[str, Ablation] = {
    "trajvit": Ablation("5, 6", "TrajViT"),
    **{
        name: Ablation(
            "5",
            MODELS[name],
            f"model={name}",
            "trajectories" if name == "vit3d" else name,
        )
        for name in _TABLE_5
    },
    "finer": Ablation("6", "resolution: twice as fine", variant="finer"),
    "coarser": Ablation("6", "segments: a coarser segmenter", variant="coarser"),
    "joined": Ablation("-", "tracking: from three frames, joined", variant="joined"),
    "keyframes": Ablation("6", "clips: key frames only", variant="keyframes"),
    "stride": Ablation("6", "clips: fixed stride only", variant="stride"),
    **{
        name: Ablation("6", title, f"model=trajvit,ablation={name}")
        for name, title in {
            "last_stage": "hierarchical features: no",
            "no_position": "position branch: no",
            "hiera": "backbone: Hiera",
            "mean": "over frames: mean",
            "queries2": "queries a trajectory: 2",
            "queries4": "queries a trajectory: 4",
        }.items()
    },
    "world_truth": Ablation("trajectories", "true", variant="truth"),
    "world_classical": Ablation("trajectories", "built-in tokenizer"),
    "world_shifted": Ablation(
        "trajectories", "true, each frame's masks moved by up to 10%", variant="truth_shifted"
    ),
    **{
        f"world_{name}": Ablation("trajectories", f"true, {title}", variant=f"truth_{name}")
        for name, title in {
            "switched10": "a new identity with probability 1/10 a frame",
            "switched": "a new identity with probability 1/4 a frame",
            "switched50": "a new identity with probability 1/2 a frame",
            "swapped": "another's identity with probability 1/4 a frame",
            "swapped50": "another's identity with probability 1/2 a frame",
        }.items()
    },
    "world_cut": Ablation(
        "trajectories", "true, a new identity in every frame", variant="truth_cut"
    ),
}
QUICK = ("trajvit", "world_cut")


def rows(
    names: Sequence[str], output: Path, *, real: bool, steps: int | None, quick: bool = False
) -> list[Row]:
    """The rows of these names."""
    found = []
    for name in names:
        own = ABLATIONS[name]
        sources = SOURCES if real and own.table != "trajectories" else ("world",)
        found.append(
            table_row(
                name,
                own.arguments,
                own.variant,
                output,
                sources=sources,
                steps=steps,
                quick=quick,
            )
        )
    return found


def errors(names: Sequence[str], output: Path) -> dict[str, TrackingError]:
    """How wrong the held-out trajectories of the last table's rows are."""
    world = output / table_records.WORLD
    entries = {entry.id: entry for entry in read_manifest(world / "test" / "manifest.jsonl")}
    found = {}
    for name in names:
        own = ABLATIONS[name]
        if own.table != "trajectories":
            continue
        records = open_records(output / "records" / own.variant / table_records.WORLD, "test")
        trajectories = [record.trajectories for record in records]
        # By id: a clip that could not be cut is in no record.
        own_entries = [entries[one.video.id] for one in trajectories]
        found[name] = tracking_error(world, own_entries, trajectories)
    return found


def tables(
    chosen: Sequence[Row],
    seeds: Sequence[int],
    ledger: Ledger,
    wrong: Mapping[str, TrackingError],
) -> dict[str, str]:
    """Tables 5 and 6 as one, and the last one, by the name of their place on the page."""

    def lines(own: Sequence[Row], reference: str) -> list[Line]:
        titles = {row.name: ABLATIONS[row.name].title for row in own}
        return lines_of(own, titles, seeds, ledger, {}, reference=reference)

    own = [row for row in chosen if ABLATIONS[row.name].table != "trajectories"]
    places = {ABLATIONS[row.name].title: {"Table": ABLATIONS[row.name].table} for row in own}
    found = {"paper": table(lines(own, "trajvit"), "row", places)}
    last = [row for row in chosen if ABLATIONS[row.name].table == "trajectories"]
    known = [row for row in last if row.name in wrong]
    by_title = {ABLATIONS[row.name].title: wrong[row.name] for row in known}
    found["trajectories"] = _by_error(lines(known, "world_truth"), by_title)
    if left := [row.name for row in last if row not in known and ledger.of(row, seeds)]:
        found["trajectories"] += (
            "\n\nTrained, and left out as the error of their trajectories is not known: "
            f"{', '.join(left)}. The command without --made and --table finds it."
        )
    return found


def _by_error(lines: Sequence[Line], wrong: Mapping[str, TrackingError]) -> str:
    """The last table, and how recall goes with error; `wrong` is by title."""
    columns = {
        title: {"tube lost": f"{error.lost:.2f}", "switches": f"{error.switches:.1f}"}
        for title, error in wrong.items()
    }
    text = table(lines, "trajectories", columns)
    if len(lines) < 3:
        return text
    recall = [line.average.value for line in lines]
    by = {
        "the part of tubes that is lost": [wrong[line.title].lost for line in lines],
        "switches": [wrong[line.title].switches for line in lines],
        "the number of tokens": [line.tokens[0] for line in lines],
    }
    said = ", ".join(
        f"with {name} {rank_correlation(recall, own):+.2f}" for name, own in by.items()
    )
    return f"{text}\n\nRank correlation of the mean, over {len(lines)} rows: {said}."


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command's options."""
    parser = table_command.parser_of(
        __file__, __doc__, quick="two steps of some rows, few clips", page="docs/ABLATIONS.md"
    )
    names = ",".join(ABLATIONS)
    parser.add_argument(
        "--rows",
        type=some_of(ABLATIONS),
        help=f"some of {names} (all; {' and '.join(QUICK)} with --quick)",
    )
    options = parser.parse_args(arguments)
    options.rows = options.rows or list(QUICK if options.quick else ABLATIONS)
    return options


def run(options: argparse.Namespace, output: Path) -> Told:
    """What `main` does."""
    code = commit()  # what is imported by now; others may change the files meanwhile
    seeds, how = seeds_of(options), kind_of_rows(options)
    chosen, trained = rows(options.rows, output, **how), Trained()
    known = options.ledger.with_name("tracking_errors.json")
    if not options.table and not options.made:
        needed = {row.name for row, _ in unfinished(Ledger(options.ledger), chosen, seeds)}
        needed |= {name for name in options.rows if ABLATIONS[name].table == "trajectories"} - set(
            read_measures(known, TrackingError)
        )
        names = [name for name in options.rows if name in needed]
        clips = captioned_clips.folder()
        for variant in dict.fromkeys(ABLATIONS[name].variant for name in names):
            table_records.make_records(output, variant, clips, quick=options.quick)
        add_measures(known, errors(names, output), TrackingError)
    if not options.table:
        trained = train_rows(chosen, seeds, options.ledger, output, code=code)
        trained.tell()
    every, every_seed = rows(list(ABLATIONS), output, **how), range(max(options.seeds, SEEDS))
    wrong = read_measures(known, TrackingError)
    found = tables(every, every_seed, Ledger(options.ledger), wrong)
    return Told(found, found, trained)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; 0 if it went well."""
    return finish(parse(arguments), run)


if __name__ == "__main__":
    run_command(main, resumes="--quick" not in sys.argv)
