"""Public annotation files -> a manifest: `python -m tokenization.annotations DATASET ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from tokenization import exit_codes, interrupts
from tokenization.annotations import sources
from tokenization.annotations.datasets import DATASETS
from tokenization.annotations.media import Media
from tokenization.annotations.problems import AnnotationError, Malformed
from tokenization.annotations.reading import Dataset
from tokenization.annotations.writer import Summary, beside, write_manifest
from tokenization.arguments import ArgumentParser
from tokenization.manifest import Entry

_DESCRIPTION = """\
Writes a manifest (one JSON object a line) of a public dataset from its annotation files, for
python -m tokenization.extract --input=MANIFEST.jsonl. Paths in it are relative to its folder, so
it lies above the media files. Beside it: MANIFEST.missing.txt, the entries whose files are not
there, which the extraction notes with the records, and MANIFEST.quarantine.jsonl, the items that
could not be understood; neither stops the run.
"""

_HELP = "python -m tokenization.annotations"


def _parser() -> ArgumentParser:
    width = max(len(dataset.name) for dataset in DATASETS)
    listed = "\n".join(f"  {dataset.name:{width}}  {dataset.about}" for dataset in DATASETS)
    examples = "\n".join(f"  {_HELP} {dataset.name} {dataset.example}" for dataset in DATASETS[1:4])
    parser = ArgumentParser(
        prog=_HELP,
        description=_DESCRIPTION,
        epilog=f"datasets:\n{listed}\n\nexamples:\n{examples}\n\n"
        f"{_HELP} DATASET --help shows its files, its options and an example.",
    )
    commands = parser.add_subparsers(
        dest="dataset", required=True, metavar="DATASET", help="one of the list below"
    )
    for dataset in DATASETS:
        command = commands.add_parser(
            dataset.name,
            description=sys.modules[dataset.read.__module__].__doc__ or dataset.about,
            epilog=f"example:\n  {_HELP} {dataset.name} {dataset.example}",
        )
        _add_arguments(command, dataset)
    return parser


def _add_arguments(parser: ArgumentParser, dataset: Dataset) -> None:
    parser.add_argument(
        "--annotations",
        metavar="FILE",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        required=dataset.needs_files,
        help="annotation files, one or several",
    )
    parser.add_argument(
        "--media",
        metavar="FOLDER",
        type=Path,
        nargs="+",
        action="extend",
        required=True,
        help="folders of the videos or images, searched in this order",
    )
    parser.add_argument(
        "--output", metavar="MANIFEST.jsonl", type=Path, required=True, help="is replaced"
    )
    for option in dataset.options:
        parser.add_argument(
            f"--{option.name}",
            type=option.type,
            choices=option.choices,
            default=option.default,
            required=option.required,
            help=option.help,
        )
    parser.add_argument("--only", metavar="FILE", type=Path, help="ids to keep, one a line")
    parser.add_argument(
        "--keep_missing",
        action="store_true",
        help="keep entries whose file is not there (yet)",
    )
    parser.add_argument(
        "--absolute_paths",
        action="store_true",
        help="write absolute paths: the media may lie anywhere, but may not be moved",
    )
    parser.add_argument(
        "--max_bad",
        type=float,
        default=0.05,
        help="exit with an error if more than this fraction of the items is malformed or a "
        "duplicate (default: 0.05)",
    )


def _counted(found: Iterator[Entry | Malformed], bar: tqdm) -> Iterator[Entry | Malformed]:
    for item in found:
        bar.update()
        yield item


def _run(options: argparse.Namespace) -> Summary:
    dataset = next(each for each in DATASETS if each.name == options.dataset)
    media = Media(*options.media)
    root = options.output.parent.resolve()
    for folder in media.folders:
        if not options.absolute_paths and not folder.is_relative_to(root):
            raise AnnotationError(
                f"{folder} does not lie below the manifest's folder {root}, and paths in a "
                f"manifest are relative to that: write --output={folder.parent / 'NAME.jsonl'}, "
                "or pass --absolute_paths"
            )
    only = None
    if options.only is not None:
        only = frozenset(line for _, line in sources.lines(options.only))
    chosen = {option.name: getattr(options, option.name) for option in dataset.options}
    found = dataset.read(options.annotations, media, **chosen)
    with tqdm(desc=dataset.name, unit="item", delay=2, mininterval=1) as bar:
        return write_manifest(
            _counted(found, bar),
            options.output,
            only=only,
            keep_missing=options.keep_missing,
            absolute_paths=options.absolute_paths,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        summary = _run(options)
    except KeyboardInterrupt:
        print("interrupted; no manifest was written", file=sys.stderr)
        return interrupts.EXIT_CODE
    except (ValueError, OSError) as error:
        return exit_codes.tell(error)
    print(summary)
    print(f"manifest: {options.output}")
    for suffix in (".missing.txt", ".quarantine.jsonl"):
        path = beside(options.output, suffix)
        if path.is_file():
            print(f"see also: {path}")
    if summary.bad > options.max_bad:
        print(
            f"error: {summary.bad:.1%} of the items could not be used, more than "
            f"--max_bad={options.max_bad:.1%}; see {beside(options.output, '.quarantine.jsonl')}",
            file=sys.stderr,
        )
        return exit_codes.FAILED
    return 0


if __name__ == "__main__":
    interrupts.install("stopping; no manifest is written")
    sys.exit(main())
