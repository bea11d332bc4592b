"""One run at a time in a workdir."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from tokenization.files import remove_leftovers
from tokenization.folder_lock import only_writer


@contextlib.contextmanager
def lock(workdir: str | os.PathLike[str], *, process: int = 0) -> Iterator[None]:
    """Holds the workdir against a second run, see `only_writer`; removes what a killed one left.

    Args:
      workdir: of the run; it is made if need be.
      process: number of this process in its run: 0 locks for all of them.

    Raises:
      FolderInUse: another run holds it; the message says which.
    """
    if process:
        yield
        return
    with only_writer(workdir, option="--workdir"):
        remove_leftovers(workdir)
        yield
