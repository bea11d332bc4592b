"""Signals while training: noted first, urgent later, told apart by exit code."""

from __future__ import annotations

import os
import signal

import pytest

from tokenization import interrupts
from tokenization.interrupts import Preempted
from trajvit_jax.run.interrupts import StopRequest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def long_press(monkeypatch):
    """Two signals are never one press."""
    monkeypatch.setattr("trajvit_jax.run.interrupts.ONE_PRESS", -1.0)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_is_noted_and_says_how_to_end(number):
    before = [signal.getsignal(one) for one in SIGNALS]
    with StopRequest() as stop:
        assert not stop.requested
        for _ in range(2):  # one press: a launcher may pass on what the whole group was sent
            signal.raise_signal(number)
        assert stop.requested and stop.signal == number
    assert [signal.getsignal(one) for one in SIGNALS] == before
    error = stop.error("stopped after step 3")
    assert str(error) == "stopped after step 3"
    assert interrupts.exit_code(error) == (130 if number == signal.SIGINT else 75)


def test_a_process_that_only_another_stopped_is_preempted():
    assert isinstance(StopRequest().error(""), Preempted)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_same_signal_again_or_ctrl_c_interrupts(number, long_press):
    for later in (number, signal.SIGINT):
        with StopRequest() as stop:
            signal.raise_signal(number)
            assert stop.signal == number
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(later)


def test_a_schedulers_other_signal_is_but_a_reminder(long_press):
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert stop.signal == signal.SIGUSR1
        with pytest.raises(Preempted):
            signal.raise_signal(signal.SIGTERM)


def test_work_that_can_be_left_is_left_at_once():
    with StopRequest() as stop:
        with pytest.raises(Preempted), stop.at_once():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Preempted), stop.at_once():
            raise AssertionError  # a signal that came before counts
    with StopRequest() as stop:
        with stop.at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
