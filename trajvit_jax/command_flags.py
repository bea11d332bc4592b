"""The flags of commands that read a config: what is wrong with them is told in a line."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags

from tokenization.arguments import as_known, flag_options
from trajvit_jax.config import file_of

_HINT = "See --help, and `python -m pydoc CONFIG.py` for its arguments."
_MISSING = "must have a value other than None"  # as absl says it of a required flag


def reader(config: flags.FlagHolder[Any], doc: str | None) -> Callable[[list[str]], list[str]]:
    """A `flags_parser` for absl's `app.run`; it ends the program where flags are wrong.

    Args:
      config: the flag of the config file.
      doc: what the command says of itself, shown where a required flag is missing.
    """

    def read(argv: list[str]) -> list[str]:
        try:
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
                _end(f"error: --{name} is missing\n\n{doc}")
            # The reader of configs puts a traceback into the message: its end is the reason.
            reason = str(error).strip().rpartition("\n")[2].strip().removeprefix("ValueError: ")
        _end(f"error: {reason}\n{_HINT}")

    return read


def _end(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    sys.exit(2)


def _check_file(argv: list[str], flag: str) -> None:
    """Raises OSError if the config is no Python file; without one there is nothing to check."""
    given = [
        item.partition("=")[2] if "=" in item else following
        for item, following in zip(argv, [*argv[1:], ""], strict=True)
        if item.partition("=")[0] in (f"-{flag}", f"--{flag}")
    ]
    if given and given[-1].partition(":")[0]:
        file_of(given[-1])
