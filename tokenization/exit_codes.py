"""Exit codes of all commands.

0 done; 2 it cannot be done as it was asked: options, settings, files that are not there or hold
something else, and the same command fails again (argparse's code); 1 it was asked well and failed:
a disk, a device, too many videos that cannot be read. Signals have their own, see `interrupts`.
"""

from __future__ import annotations

import os
import sys

from trajvit_jax.config import ConfigError

ASKED_WRONG, FAILED = 2, 1
EMPTY = "is empty; is a shell variable not set?"  # of an option that names a path
_NAMED_WRONG = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


def code_of(error: Exception) -> int:
    """The exit code of a command that this ended."""
    if isinstance(error, OSError):
        return ASKED_WRONG if isinstance(error, _NAMED_WRONG) else FAILED
    return ASKED_WRONG if isinstance(error, ValueError) else FAILED


def tell(error: Exception, *, by: str = "") -> int:
    """Prints why a command ends, in a line, and whose help to read; returns its exit code.

    Args:
      error: that ended it.
      by: name of the command, where others print to the same place.
    """
    print(f"{by}{': ' if by else ''}error: {error}", file=sys.stderr)
    if isinstance(error, ConfigError):
        # Without a folder, pydoc takes it for the name of a module.
        file = error.file if os.sep in error.file else f".{os.sep}{error.file}"
        print(f"See --help, and `python -m pydoc {file}` for its arguments.", file=sys.stderr)
    return code_of(error)
