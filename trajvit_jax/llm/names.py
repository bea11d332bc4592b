"""How conversations and records find each other."""

from __future__ import annotations

from pathlib import PurePosixPath


def record_id(video: str) -> str:
    """The id of the record of a video, as a LLaVA-Video file names it: its path, no suffix."""
    return str(PurePosixPath(video).with_suffix(""))
