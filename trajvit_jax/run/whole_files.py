"""Whether a folder still has all its files as they were: noted once it is complete."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

from tokenization.files import write_text

_NOTE = "files.json"
_MISSING = " is missing"
_SMALL = 2**20  # bytes: larger files hold arrays, whose values have checksums of their own


def note_files(folder: Path) -> None:
    """Writes down size and CRC-32 of the files in the folders within this one."""
    write_text(folder / _NOTE, json.dumps(_files(folder), indent=1) + "\n")


def find_damage(folder: Path) -> str:
    """Names a file that is missing or not as it was noted; '' if there is none."""
    try:
        noted = json.loads((folder / _NOTE).read_text("utf-8"))
    except FileNotFoundError:
        return f"{_NOTE}{_MISSING}"
    except ValueError:
        return f"{_NOTE} is damaged"
    files = _files(folder)
    for name, (size, crc) in noted.items():
        if name not in files:
            return f"{name}{_MISSING}"
        if files[name][0] != size:
            return f"{name} has {files[name][0]} bytes, not {size}"
        if files[name][1] != crc:
            return f"{name} has other contents than when it was written"
    return ""


def is_missing(damage: str) -> bool:
    """Whether what `find_damage` said is that a file is not there."""
    return damage.endswith(_MISSING)


def _files(folder: Path) -> dict[str, list[int | None]]:
    """Size, and the CRC-32 of small ones."""
    files: dict[str, list[int | None]] = {}
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file():
            size = path.stat().st_size
            crc = zlib.crc32(path.read_bytes()) if size <= _SMALL else None
            files[path.relative_to(folder).as_posix()] = [size, crc]
    return files
