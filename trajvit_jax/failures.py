"""Which errors a restart would meet again."""

from __future__ import annotations


class ComesAgain(ValueError):
    """Settings or records that no restart mends, noticed when steps have been made already.

    Any other ValueError at that time is of a library, a disk, a network: see `trajvit_jax.loop`.
    """
