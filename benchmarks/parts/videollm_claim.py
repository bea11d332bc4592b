"""What a kept file was made with: it is used again by the same settings alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenization.files import write_text
from trajvit_jax.config import differences


def claim(path: Path, settings: Mapping[str, Any]) -> bool:
    """Notes the settings, or checks that they are those of the note.

    Args:
      path: of the note.
      settings: as JSON holds them.

    Returns:
      Whether there was a note.

    Raises:
      ValueError: it is of other settings; the message names these.
    """
    wanted = json.loads(json.dumps(settings))
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(wanted, indent=1) + "\n")
        return False
    changed = differences(json.loads(path.read_text("utf-8")), wanted)
    if changed:
        raise ValueError(
            f"{path} tells of other settings: {'; '.join(changed)}. Choose another --output, or "
            "delete what was made with them"
        )
    return True
