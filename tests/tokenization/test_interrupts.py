"""Ctrl-C in commands: the first cleans up, a later one ends, whatever the main thread does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from tokenization import interrupts

COMMAND = """
import signal, sys, time
from tokenization import interrupts
interrupts.install("stopping; all is kept")
try:
    print("ready", flush=True)
    {body}
except KeyboardInterrupt:
    {cleanup}
    interrupts.leave("interrupted")
"""

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


def run(body: str, *presses: float, cleanup: str = "pass") -> tuple[int, str]:
    """Exit code and stderr of a command that is sent SIGINT after each of the waits."""
    script = COMMAND.format(body=body, cleanup=cleanup)
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    for wait in presses:
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def test_the_first_press_says_what_happens_and_cleans_up():
    cleanup = "time.sleep(0.5); print('cleaned', file=sys.stderr)"
    code, stderr = run("time.sleep(60)", 0.0, cleanup=cleanup)
    assert code == interrupts.EXIT_CODE
    assert [line for line in stderr.splitlines() if line] == [
        "stopping; all is kept; Ctrl-C again ends at once",
        "cleaned",
        "interrupted",
    ]


def test_two_signals_of_one_press_do_not_break_into_cleaning_up():
    code, stderr = run(
        "time.sleep(60)", 0.0, 0.2, cleanup="time.sleep(1); print('cleaned', file=sys.stderr)"
    )
    assert code == interrupts.EXIT_CODE
    assert "cleaned" in stderr and "Traceback" not in stderr


def test_a_second_press_ends_what_does_not_stop():
    wait = interrupts.ONE_PRESS + 0.3
    code, stderr = run("time.sleep(60)", 0.0, wait, cleanup="time.sleep(60)")
    assert code == interrupts.EXIT_CODE
    assert "stopping" in stderr and "interrupted" not in stderr


def test_cleaning_up_has_an_end():
    body = "interrupts._PATIENCE = 0.2; time.sleep(60)"
    code, _ = run(body, 0.5, cleanup="time.sleep(60)")
    assert code == interrupts.EXIT_CODE


def test_a_press_while_garbage_is_collected_is_not_lost():
    """Python ignores what callbacks of the collector raise; JAX has one."""
    body = (
        "import gc; gc.callbacks.append(lambda phase, info: phase == 'start' and time.sleep(0.5)); "
        "gc.collect(); gc.callbacks.clear(); time.sleep(5); print('lost', file=sys.stderr)"
    )
    code, stderr = run(body, 0.2)
    assert code == interrupts.EXIT_CODE
    assert "interrupted" in stderr and "lost" not in stderr and "Traceback" not in stderr


def test_one_press_in_a_long_collection_is_one():
    """It comes again and again until it can be raised: that is nobody's second press."""
    seconds = interrupts.ONE_PRESS + 1
    body = (
        f"import gc; end = time.monotonic() + {seconds}; "
        "gc.callbacks.append(lambda *_: [time.sleep(0.01) for _ in iter(lambda: time.monotonic() "
        "< end, False)]); gc.collect(); gc.callbacks.clear(); time.sleep(5)"
    )
    code, stderr = run(body, 0.2)
    assert code == interrupts.EXIT_CODE and "interrupted" in stderr


@pytest.mark.parametrize("number", interrupts.PREEMPTION)
def test_preemption_cleans_up_and_has_an_exit_code_of_its_own(number):
    install, leave = 'install("stopping; all is kept"', 'leave("interrupted"'
    script = COMMAND.format(body="time.sleep(60)", cleanup="time.sleep(0.5)")
    script = script.replace(install, f"{install}, preemption=True")
    script = script.replace("KeyboardInterrupt:", "KeyboardInterrupt as error:")
    script = script.replace(leave, f"{leave}, interrupts.exit_code(error)")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == interrupts.PREEMPTED_EXIT_CODE == 75
    name = signal.Signals(number).name
    assert f"{name}: stopping; all is kept; a second one ends at once" in stderr
    assert "interrupted" in stderr and "Traceback" not in stderr


def test_only_ctrl_c_and_a_repeated_signal_are_urgent():
    assert interrupts.is_urgent(signal.SIGINT, {signal.SIGTERM})
    assert interrupts.is_urgent(signal.SIGTERM, {signal.SIGTERM})
    assert not interrupts.is_urgent(signal.SIGTERM, {signal.SIGUSR1})
