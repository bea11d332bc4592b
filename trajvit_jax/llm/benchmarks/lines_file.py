"""A file that grows by one JSON line a result, and goes on where a run was cut off."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class LinesFile:
    """Results by id; the first line says what they are of. Use it as a context.

    Each line is written whole, in one call; a line that a killed run left without its end is
    removed. One process has the file at a time.

    Attributes:
      lines: by id; of several with one id the last.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        option: str,
        note: Mapping[str, Any] | None = None,
        anew: str = "start anew with --overwrite",
    ) -> None:
        """Opens the file, or makes it; one of other settings without any results is made anew.

        Args:
          path: of the file.
          settings: that its results depend on (JSON values).
          option: of the command, which names the file.
          note: what the first line tells, too, and nothing depends on.
          anew: what to do where its results are of other settings.

        Raises:
          ValueError: it has results of other settings, or is no such file.
          BlockingIOError: another process has it.
          OSError: it cannot be written.
        """
        self._path = Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a+b", buffering=0)
        try:
            self._lock(option)
            found = self._whole_lines()
            # Through JSON, as the file's: a tuple is a list there.
            settings, note = (json.loads(json.dumps(dict(own or {}))) for own in (settings, note))
            there = {key: x for key, x in found[0].items() if key not in note} if found else None
            if there != settings:
                # A file of nothing but such a first line has no results to lose.
                if len(found) > 1 or (there and not there.keys() <= settings.keys()):
                    raise ValueError(self._other(there or {}, settings, option, anew))
                self._file.truncate(0)
                self._write(note | settings)
        except BaseException:
            self._file.close()
            raise
        self.lines: dict[str, dict[str, Any]] = {one["id"]: one for one in found[1:]}

    def __enter__(self) -> LinesFile:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def add(self, line: Mapping[str, Any]) -> None:
        """Writes a result, which has an `id`."""
        self._write(line)
        self.lines[line["id"]] = dict(line)

    def _write(self, line: Mapping[str, Any]) -> None:
        rest = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
        while rest:
            rest = rest[self._file.write(rest) or 0 :]

    def _lock(self, option: str) -> None:
        if fcntl is None:
            return
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f"{self._path} is in use by another process; wait for it, or choose another "
                f"{option}"
            ) from None
        except OSError:
            return  # a file system without locks

    def _whole_lines(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            self._file.truncate(len(whole))
        found = []
        # Not splitlines, which also splits at characters that an answer may hold.
        for number, line in enumerate(whole.decode("utf-8", "replace").split("\n")[:-1], 1):
            try:
                entry = json.loads(line)
            except ValueError:
                entry = None
            if not isinstance(entry, dict) or (number > 1 and not isinstance(entry.get("id"), str)):
                raise ValueError(
                    f"{self._path} line {number} is no result; was it made by another program?"
                )
            found.append(entry)
        return found

    def _other(
        self, found: Mapping[str, Any], wanted: Mapping[str, Any], option: str, anew: str
    ) -> str:
        name = next(key for key in (*wanted, *found) if found.get(key) != wanted.get(key))
        return (
            f"{self._path} has results of {name}={found.get(name)!r}, not {wanted.get(name)!r}; "
            f"choose another {option}, or {anew}"
        )
