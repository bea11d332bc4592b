"""How an extraction is asked for another number of frames, for messages."""

from __future__ import annotations

import contextlib

from trajvit_jax import config as configs

_DEFAULTS = "configs/tokenization/classical.py"  # the settings without a config, as one


def asking_for(config: str | None, frames: int | str = "N") -> str:
    """What to say of a config.

    Args:
      config: `file.py[:arg]` of the run; None = it had none.
      frames: to ask for.
    """
    file, _, arg = (config or _DEFAULTS).partition(":")
    kept = [item for item in arg.split(",") if item and item.partition("=")[0].strip() != "frames"]
    if config and not _takes_frames(file):
        return f"pipeline.frames of {file} is how many"
    return f"--config={file}:{','.join([*kept, f'frames={frames}'])} asks for {frames}"


def _takes_frames(file: str) -> bool:
    # It has no such argument; or whatever a user's program raises, which must end no run.
    with contextlib.suppress(Exception):
        return configs.load(f"{file}:frames=1").get("pipeline", {}).get("frames") == 1
    return False
