"""What made a number: the code's commit, and the versions of what it stands on."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Of the code, with '+' where tracked files differ from it; '' outside a checkout.

    Files of docs/ do not count: programs write their results there, and no result depends on them.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        head = git("rev-parse", "--short=12", "HEAD") if (_ROOT / ".git").exists() else ""
        code = ("--", ".", ":(exclude)docs")
        changed = git("status", "--porcelain", "--untracked-files=no", *code) if head else ""
    except OSError:  # there is no git
        return ""
    return head + ("+" if changed else "")


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of these packages."""
    own = {name: metadata.version(name) for name in packages}
    return {"python": platform.python_version()} | own
