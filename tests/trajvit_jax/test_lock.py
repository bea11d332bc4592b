"""One run a workdir: a second is refused, and a killed one leaves no lock."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys

import pytest

from tokenization import folder_lock
from trajvit_jax.run.workdir import lock

HOLDER = """
import sys, time
from trajvit_jax.run.workdir import lock
with lock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")


def test_a_second_run_is_refused_in_a_line_that_names_the_first(tmp_path):
    with lock(tmp_path / "run"):
        reason = (
            rf"run is in use by another process on host \S+, pid {os.getpid()}, since .*--workdir"
        )
        with pytest.raises(BlockingIOError, match=reason) as refusal, lock(tmp_path / "run"):
            pass
        assert "\n" not in str(refusal.value)
        with lock(tmp_path / "run", process=1):  # of the same run
            pass
    with lock(tmp_path / "run"):
        pass


def test_a_killed_run_leaves_no_lock_and_no_files(tmp_path):
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError, match=f"pid {holder.pid}"), lock(tmp_path):
        pass
    left = tmp_path / f".vocab.txt.0a1b2c3d.{holder.pid}.partial"
    left.touch()
    with lock(tmp_path, process=1):
        assert left.exists()  # process 0 sees to that
    holder.send_signal(signal.SIGKILL)
    holder.communicate()
    with lock(tmp_path):
        assert not left.exists()
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()


def test_a_file_system_without_locks_is_told_of(tmp_path, monkeypatch, caplog):
    def flock(file, operation):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(folder_lock.fcntl, "flock", flock)
    with caplog.at_level(logging.WARNING), lock(tmp_path):
        assert "nobody else writes" in caplog.text
