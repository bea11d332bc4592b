"""Functions run in processes: order, deaths, and processes that cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tokenization import workers

MAKE = """
import os, signal, sys, time
from tokenization import workers

def work(item):
    return item * 2

def make():
    return work

def died(item):
    return f"{item} died"
"""


@pytest.fixture
def script(tmp_path):
    """Runs a script of its own, as spawned processes import the main module again."""

    def run(body: str) -> subprocess.CompletedProcess[str]:
        path: Path = tmp_path / "script.py"
        path.write_text(MAKE + body)
        return subprocess.run([sys.executable, path], check=False, capture_output=True, text=True)

    return run


def echo():
    return str


def test_order_is_kept_in_one_process():
    assert list(workers.ordered_map(echo, range(5), workers=1, died=str)) == list("01234")


def test_a_dying_process_costs_one_video(script):
    """As when a library crashes or memory runs out."""
    done = script(
        "def work(item):\n"
        "    if item == 'b':\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return item * 2\n"
        "if __name__ == '__main__':\n"
        "    print(list(workers.ordered_map(make, 'abcd', workers=2, died=died)))\n"
    )
    assert done.stdout.strip() == str(["aa", "b died", "cc", "dd"]), done.stderr


def test_the_first_item_may_die(script):
    """A process that starts and then dies is not one that cannot start."""
    done = script(
        "def work(item):\n"
        "    return os._exit(1) if item == 'a' else item * 2\n"
        "if __name__ == '__main__':\n"
        "    print(list(workers.ordered_map(make, 'ab', workers=2, died=died)))\n"
    )
    assert done.stdout.strip() == str(["a died", "bb"]), done.stderr


def test_a_process_may_die_while_the_caller_is_busy(script):
    """Then it is the next submission that finds the pool broken."""
    done = script(
        "def work(item):\n"
        "    if item == 1:\n"
        "        time.sleep(0.3)\n"
        "        os._exit(1)\n"
        "    return item\n"
        "if __name__ == '__main__':\n"
        "    found = []\n"
        "    for result in workers.ordered_map(make, range(20), workers=2, died=died):\n"
        "        found.append(result)\n"
        "        time.sleep(1.5 * (result == 0))\n"
        "    print(found)\n"
    )
    assert done.stdout.strip() == str([0, "1 died", *range(2, 20)]), done.stderr


def test_a_script_without_a_guard_is_told_so(script):
    done = script("print(list(workers.ordered_map(make, 'abcd', workers=2, died=died)))\n")
    assert done.returncode != 0
    # Python's own messages, of the workers and at its end, may stand before and behind it.
    _, said, remedy = done.stderr.partition("StartError: worker processes cannot start")
    assert said and "if __name__ == '__main__'" in remedy
    assert "died" not in done.stdout


def test_what_making_the_function_raises_reaches_the_caller(script):
    done = script(
        "def make():\n"
        "    raise KeyError('no weights')\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        "        print(list(workers.ordered_map(make, 'abcd', workers=2, died=died)))\n"
        "    except KeyError as error:\n"
        "        print('caught', error)\n"
    )
    assert done.stdout.strip() == "caught 'no weights'", done.stderr


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks at processes in /proc")
@pytest.mark.parametrize(
    "end", ["mapped.close()", "os.kill(os.getpid(), signal.SIGKILL)"], ids=["closed", "killed"]
)
def test_no_process_is_left_at_work(script, end):
    """When the caller is interrupted, or killed, in the middle."""
    done = script(
        "def work(item):\n"
        "    if item:\n"
        "        time.sleep(600)\n"
        "    return os.getpid()\n"
        "if __name__ == '__main__':\n"
        "    mapped = workers.ordered_map(make, range(9), workers=2, died=died)\n"
        "    print(next(mapped), flush=True)\n"
        f"    {end}\n"
    )
    worker = Path("/proc", done.stdout.strip(), "stat")
    deadline = time.monotonic() + 60
    while worker.exists() and worker.read_text().split()[2] != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_command_says_that_its_workers_cannot_start(tmp_path):
    script = (
        "from absl import app\n"
        "from tokenization import extract, workers\n"
        "def fail(*args, **kwargs):\n"
        "    raise workers.StartError('worker processes cannot start')\n"
        "workers.ordered_map = fail\n"
        "extract.define_flags()\n"
        "app.run(extract.main)\n"
    )
    (tmp_path / "a.mp4").touch()
    arguments = [f"--input={tmp_path / 'a.mp4'}", f"--output={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], check=False, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "error: worker processes cannot start" in done.stderr
    assert "Traceback" not in done.stderr


def test_cores_that_are_not_ours_are_not_counted(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert workers.available_cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    assert workers.available_cores() == 64
