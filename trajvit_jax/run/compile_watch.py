"""Programs that are compiled after they should have been: told with the shapes that did it."""

from __future__ import annotations

import logging
from typing import Any

import jax

_LOG = logging.getLogger(__name__)


class CompileWatch:
    """Counts the programs of a function of `jax.jit`, which needs one a stream of batches."""

    def __init__(self, function: Any):
        self._function, self._known = function, 0
        self._seen: dict[str, str] = {}

    @property
    def count(self) -> int:
        """Programs so far."""
        return self._function._cache_size()

    def check(self, step: int, stream: str, batch: Any) -> bool:
        """Whether a stream that had its program got another one; warns if so.

        Args:
          step: that was just started.
          stream: whose batch it read.
          batch: what it read.
        """
        shapes = describe(batch)
        before = self._seen.get(stream)
        self._seen[stream] = shapes
        new, self._known = self.count > self._known, self.count
        if before is None or not new:
            return False
        changed = "the same shapes" if before == shapes else f"before: {before}"
        _LOG.warning(
            "step %d of stream %r was compiled again, program %d: %s (%s)",
            step,
            stream,
            self.count,
            shapes,
            changed,
        )
        return True


def describe(tree: Any) -> str:
    """Names, dtypes and shapes of a tree's arrays, in a line."""
    return ", ".join(
        f"{jax.tree_util.keystr(path, simple=True, separator='.')} {leaf.dtype}{list(leaf.shape)}"
        for path, leaf in jax.tree.leaves_with_path(tree)
    )
