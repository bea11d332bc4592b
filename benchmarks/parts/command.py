"""What the commands of all benchmarks share: options, numbers in a file, bounds, exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.parts.arguments import new_file
from tokenization import exit_codes, interrupts
from tokenization.arguments import ArgumentParser
from tokenization.files import write_text


def parser_of(
    file: str, about: str | None, *, quick: str, numbers: str = "also write the numbers here"
) -> ArgumentParser:
    """The options that every benchmark has.

    Args:
      file: the benchmark's `__file__`, which names it.
      about: what `--help` says.
      quick: what `--quick` does.
      numbers: what `--json` writes.
    """
    parser = ArgumentParser(prog=f"python -m benchmarks.{Path(file).stem}", description=about)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--json", type=new_file, metavar="FILE", help=numbers)
    return parser


def write_json(path: Path | None, numbers: Any) -> None:
    """Writes what `--json` asks for; nothing where it does not."""
    if path is not None:
        write_text(path, json.dumps(numbers, indent=1) + "\n")


def tell_bounds(bounds: Mapping[str, bool]) -> int:
    """Prints whether each bound holds; the exit code of a command that is judged by them."""
    for said, holds in bounds.items():
        print(f"{'holds' if holds else 'FAILS'}: {said}")
    return 0 if all(bounds.values()) else exit_codes.FAILED


def run_command(main: Callable[[], int], *, resumes: bool = False) -> NoReturn:
    """Runs a command and ends the process with its exit code.

    Args:
      main: returns the exit code. What it raises as asked wrong ends it with 2, see
        `tokenization.exit_codes`.
      resumes: the same command goes on after an interruption, so that a scheduler may take the
        machine back, too.
    """
    interrupts.install(
        "stopping; what is finished is kept" if resumes else "stopping", preemption=resumes
    )
    try:
        code = main()
    except KeyboardInterrupt as error:
        message = "interrupted; run the same command again to go on" if resumes else "interrupted"
        interrupts.leave(message, interrupts.exit_code(error))
    except (ValueError, OSError, FloatingPointError) as error:
        code = exit_codes.tell(error)
    sys.exit(code)
