"""Small files that others are judged by are on the disk before they have their names."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from tokenization.files import replacing, write_text


@pytest.fixture
def calls(monkeypatch):
    """What was synchronized and renamed, in order."""
    found, fsync, replace = [], os.fsync, Path.replace

    def note_sync(file):
        found.append("sync folder" if stat.S_ISDIR(os.fstat(file).st_mode) else "sync file")
        fsync(file)

    def note_rename(self, target):
        found.append(f"rename, {self.stat().st_size} bytes")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    return found


@pytest.mark.skipif(os.name != "posix", reason="folders cannot be synchronized")
def test_a_small_file_is_on_the_disk_before_its_name_is(calls, tmp_path):
    write_text(tmp_path / "vocab.txt", "text")
    assert calls == ["sync file", "rename, 4 bytes", "sync folder"]
    with replacing(tmp_path / "picture") as partial:
        partial.write_bytes(b"xyz")
    assert calls[3:] == ["rename, 3 bytes"]


def test_a_disk_that_fails_keeps_the_old_file(monkeypatch, tmp_path):
    def fail(file):
        raise OSError(errno.EIO, "Input/output error")

    write_text(tmp_path / "vocab.txt", "old")
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        write_text(tmp_path / "vocab.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["vocab.txt"]
    assert (tmp_path / "vocab.txt").read_text() == "old"
