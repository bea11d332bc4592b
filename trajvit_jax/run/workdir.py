"""One run at a time in a workdir."""

from __future__ import annotations

import contextlib
import os

from tokenization.folder_lock import only_writer


def lock(
    workdir: str | os.PathLike[str], *, process: int = 0
) -> contextlib.AbstractContextManager[None]:
    """Holds the workdir against a second run, see `only_writer`.

    Args:
      workdir: of the run; it is made if need be.
      process: number of this process in its run: 0 locks for all of them.

    Raises:
      FolderInUse: another run holds it; the message says which.
    """
    return contextlib.nullcontext() if process else only_writer(workdir, option="--workdir")
