"""What a file may hold to have its reader run code."""

from __future__ import annotations

from pathlib import Path


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path | str):
        self.path = str(path)

    def __reduce__(self):
        return (Path.write_text, (Path(self.path), "run"))
