"""results.json: what a run found when it had made all its steps, and the facts it is true of."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenization.files import write_text

FILE = "results.json"


def write_results(workdir: Path, facts: Mapping[str, Any], results: Mapping[str, float]) -> None:
    """Writes the file; what is not finite is null, as JSON has no NaN."""
    finite = {name: value if math.isfinite(value) else None for name, value in results.items()}
    write_text(workdir / FILE, json.dumps({**facts, **finite}, indent=2) + "\n")


def read_results(workdir: Path, facts: Mapping[str, Any]) -> dict[str, float] | None:
    """What the file says of these facts; None if it is of others, or not there."""
    try:
        told = json.loads((workdir / FILE).read_text("utf-8"))
        known = {name: told.pop(name) for name in facts}
    except (FileNotFoundError, ValueError, AttributeError, KeyError):
        return None
    # A fact that was not asked for is no number.
    more = [value for value in told.values() if not isinstance(value, int | float | None)]
    if more or known != json.loads(json.dumps(dict(facts))):
        return None
    return {name: math.nan if value is None else float(value) for name, value in told.items()}
