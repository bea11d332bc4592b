"""The flags of commands that read a config: what is wrong with them is told in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import flags

from tokenization.arguments import as_known, flag_options
from trajvit_jax.config import file_of

_HINT = "See --help, and `python -m pydoc CONFIG.py` for its arguments."
_MISSING = "must have a value other than None"  # as absl says it of a required flag


def reader(
    config: flags.FlagHolder[Any], doc: str | None, *, otherwise: Sequence[str] = ()
) -> Callable[[list[str]], list[str]]:
    """A `flags_parser` for absl's `app.run`; it ends the program where flags are wrong.

    Args:
      config: the flag of the config file.
      doc: what the command says of itself, shown where a required flag is missing.
      otherwise: of a command line that names no config, its first arguments, where the file is
        that the first of them names.
    """
    file = otherwise[0].partition("=")[2].partition(":")[0] if otherwise else ""

    def read(argv: list[str]) -> list[str]:
        try:
            if otherwise and not _files(argv, config.name) and Path(file).is_file():
                # Before the others, which may name the same flags and then count.
                argv = [argv[0], *otherwise, *argv[1:]]
            _check_file(argv, config.name)
            rest = flags.FLAGS(as_known(argv, flag_options(flags.FLAGS)))
            if config.value is not None:
                config.value.items()  # a file that cannot be read is only found here
            return rest
        except SyntaxError as error:
            reason = f"{error.filename} line {error.lineno}: {error.msg}"
        except AttributeError as error:
            if not (error.args and isinstance(error.args[0], KeyError)):
                raise
            hint = str(error.args[0].args[0]).replace("\n", "; ")
            reason = f"the config names no setting {hint}"
        except (flags.Error, OSError) as error:
            if _MISSING in str(error):
                name = str(error).partition("--")[2].partition("=")[0]
                here = f", and there is no {file} here: name a config, or run this where that is"
                _end(f"error: --{name} is missing{here if file else ''}\n\n{doc}")
            # The reader of configs puts a traceback into the message: its end is the reason.
            reason = str(error).strip().rpartition("\n")[2].strip().removeprefix("ValueError: ")
        _end(f"error: {reason}\n{_HINT}")

    return read


def _end(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def _files(argv: list[str], flag: str) -> list[str]:
    """The configs that a command line names."""
    return [
        item.partition("=")[2] if "=" in item else following
        for item, following in zip(argv, [*argv[1:], ""], strict=True)
        if item.partition("=")[0] in (f"-{flag}", f"--{flag}")
    ]


def _check_file(argv: list[str], flag: str) -> None:
    """Raises OSError if the config is no Python file; without one there is nothing to check."""
    given = _files(argv, flag)
    if given and given[-1].partition(":")[0]:
        file_of(given[-1])
