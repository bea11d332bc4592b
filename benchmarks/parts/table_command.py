"""What `benchmarks.comparison` and `benchmarks.ablations` do alike: options, files, the page."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.parts import captioned_clips, command
from benchmarks.parts.arguments import count
from benchmarks.parts.quick_programs import use_quick_programs
from benchmarks.parts.table_runs import Trained
from benchmarks.parts.table_text import replace_block

SEEDS = 3
_LOG = logging.getLogger("trajvit_jax.benchmarks")


@dataclasses.dataclass(frozen=True)
class Told:
    """What a command has found.

    Attributes:
      blocks: the texts, by the names of their places on the page.
      numbers: what `--json` writes.
      trained: the rows that were trained.
    """

    blocks: Mapping[str, str]
    numbers: Any
    trained: Trained


def parser_of(file: str, about: str | None, *, quick: str, page: str) -> argparse.ArgumentParser:
    """The options that both have; args as of `command.parser_of`, and the page's default."""
    parser = command.parser_of(file, about, quick=quick)
    parser.add_argument("--seeds", type=count, default=SEEDS, help="0 to this, less one (3)")
    parser.add_argument("--steps", type=count, help="of each run; other steps are other rows")
    parser.add_argument("--output", type=Path, help="of clips, records, runs (runs/comparison)")
    parser.add_argument(
        "--ledger",
        type=Path,
        default="docs/comparison.jsonl",
        help="of finished rows; what else is measured lies beside it (docs/comparison.jsonl)",
    )
    parser.add_argument("--page", type=Path, default=page, help=f"with the tables ({page})")
    does = parser.add_mutually_exclusive_group()
    does.add_argument("--table", action="store_true", help="train nothing")
    does.add_argument(
        "--made",
        action="store_true",
        help="make no records: --output has them, of a machine with the clips; keeps the page",
    )
    return parser


def kind_of_rows(options: argparse.Namespace) -> dict[str, Any]:
    """How the rows are made that these options ask for: whether of real clips, steps, size."""
    real = options.table or options.made or captioned_clips.folder() is not None
    if not real:
        _LOG.warning(
            "%s; without them rows are of the world alone: other rows than the page's",
            captioned_clips.MISSING,
        )
    return {
        "real": real,
        "steps": 2 if options.quick else options.steps,
        "quick": options.quick,
    }


def seeds_of(options: argparse.Namespace) -> range:
    """Those that are trained."""
    return range(1 if options.quick else options.seeds)


def finish(options: argparse.Namespace, work: Callable[[argparse.Namespace, Path], Told]) -> int:
    """Does a command's work, tells what it found, and writes it into the page.

    Args:
      options: of the command. A quick run keeps nothing: not even its rows.
      work: is given the options and the folder of clips, records and runs.

    Returns:
      The exit code: 1 where a row could not be trained.
    """
    logging.basicConfig(format="%(message)s", force=True)  # a library may have been first
    logging.getLogger("trajvit_jax").setLevel(logging.INFO)
    if options.quick:
        use_quick_programs()
        with tempfile.TemporaryDirectory() as folder:
            options.ledger = Path(folder, "rows.jsonl")
            told = work(options, options.output or Path(folder))
    else:
        told = work(options, options.output or Path("runs/comparison"))
        here = options.table or (not options.made and captioned_clips.folder() is not None)
        if here and options.steps is None:
            for name, text in told.blocks.items():
                replace_block(options.page, name, text)
        elif not options.made:
            _LOG.warning("rows of other steps or data: %s stays as it is", options.page)
    for name, text in told.blocks.items():
        print(f"\n{name}\n{text}")
    command.write_json(options.json, told.numbers)
    if options.quick:
        print("two steps teach nothing, and few clips are all among five: take the full run")
    return 1 if told.trained.failed else 0
