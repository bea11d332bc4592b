"""What the commands that write datasets of records share: flags, what they print, how they end."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, flags

from tokenization import exit_codes, interrupts
from tokenization.arguments import as_known, flag_options
from tokenization.engines import choice
from tokenization.engines.protocol import EngineError
from tokenization.summary import Summary

MANIFEST = (
    'Manifest (*.jsonl), folder, video, or quoted pattern ("clips/**/*.mp4"). A manifest has '
    'one JSON object a line: {"id": "a", "path": "a.mp4", "start": 0.5, "end": 9, "captions": '
    '["..."], "label": "..."}; only id and path are needed; a path is absolute, or relative '
    "to the manifest's folder and below it. Append new videos at its end: what is finished stays."
)


def define_flags() -> None:
    """Defines the flags; not at import, where they would clash with other commands."""
    flags.DEFINE_string("input", None, MANIFEST, required=True)
    flags.DEFINE_string("output", None, "Folder of the dataset of records.", required=True)
    refuse_empty("input", "output")
    flags.DEFINE_string("split", "train", "Name of the split to write.")
    flags.DEFINE_float(
        "max_bad", 0.05, "Exit with an error if more than this fraction cannot be read.", 0.0, 1.0
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Remove what the run would else be refused for: records of other settings in the whole "
        "folder, all of its splits, and videos of the split that --input does not name or whose "
        "files are gone.",
    )
    flags.DEFINE_bool("retry_quarantined", False, "Try unreadable videos again.")
    choice.define_flags()
    flags.adopt_module_key_flags(choice)


def refuse_empty(*names: str) -> None:
    """Flags of paths that may not be empty: that would be the current folder."""
    for name in names:
        flags.register_validator(
            name, lambda value: value is None or bool(value.strip()), message=exit_codes.EMPTY
        )


def finish(argv: Sequence[str], run: Callable[[], Summary]) -> int:
    """Does the work of a command and says how it went; returns the exit code."""
    if len(argv) > 1:
        raise app.UsageError(
            f"unknown arguments {argv[1:]}; quote patterns: --input='*.mp4'", exit_codes.ASKED_WRONG
        )
    flag = flags.FLAGS
    try:
        summary = run()
    except KeyboardInterrupt as interrupt:
        notes = "".join(f"{note}; " for note in getattr(interrupt, "__notes__", ()))
        print(f"interrupted; {notes}run the same command again to go on", file=sys.stderr)
        return interrupts.exit_code(interrupt)
    except (ValueError, OSError, EngineError) as error:
        return exit_codes.tell(error)
    print(summary)
    print(f"records: {flag.output} (stats.md, quarantine.jsonl)")
    if summary.bad > flag.max_bad:
        print(
            f"error: {summary.bad:.1%} of the videos could not be read, more than "
            f"--max_bad={flag.max_bad:.1%}; see {Path(flag.output) / 'quarantine.jsonl'}",
            file=sys.stderr,
        )
        return exit_codes.FAILED
    return 0


def start(define: Callable[[], None], main: Callable[[Sequence[str]], int]) -> None:
    """Runs a command; help, which absl ends as an error, is none."""
    define()
    if {"-h", "--help"} & set(sys.argv[1:]):
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    interrupts.install("stopping; what is finished is kept", preemption=True)
    app.run(main, flags_parser=_read)


def _read(argv: list[str]) -> list[str]:
    """What is left of the arguments; ends the program where flags are wrong."""
    try:
        return flags.FLAGS(as_known(argv, flag_options(flags.FLAGS)))
    except flags.Error as error:
        reason = str(error).replace("\n", "; ")
        print(f"error: {reason}\nSee --help.", file=sys.stderr)
        sys.exit(exit_codes.ASKED_WRONG)
