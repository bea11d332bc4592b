"""Clocks around functions of the product, and the memory that networks take on a GPU."""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from unittest import mock

Stages = Mapping[str, tuple[tuple[Any, str], ...]]
"""Name of a stage -> the functions that it is made of, each as owner and attribute."""


class _Shares:
    """Seconds of stages; threads that are in some at once share the time between them."""

    def __init__(self, names: Stages) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        self._lock = threading.Lock()
        self._inside: list[tuple[int, str]] = []
        self._at = time.perf_counter()

    @contextlib.contextmanager
    def of(self, stage: str) -> Iterator[None]:
        place = threading.get_ident(), stage
        with self._lock:
            self._pass_on()
            self._inside.append(place)
        try:
            yield
        finally:
            with self._lock:
                self._pass_on()
                self._inside.remove(place)

    def _pass_on(self) -> None:
        now = time.perf_counter()
        share = (now - self._at) / max(1, len({thread for thread, _ in self._inside}))
        for _, stage in self._inside:
            self.seconds[stage] += share
        self._at = now


@contextlib.contextmanager
def clocks(stages: Stages) -> Iterator[dict[str, float]]:
    """Seconds spent in each stage while the block runs; 0 for one that is not called.

    Those of all threads add up to time that has passed, but for stages inside others. A GPU is
    waited for before a clock is read.
    """
    shares = _Shares(stages)

    def timed(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def call(*args: Any, **keywords: Any) -> Any:
            wait_for_gpu()
            with shares.of(stage):
                try:
                    return function(*args, **keywords)
                finally:
                    wait_for_gpu()

        return call

    with contextlib.ExitStack() as stack:
        for stage, functions in stages.items():
            for owner, attribute in functions:
                function = timed(stage, getattr(owner, attribute))
                stack.enter_context(mock.patch.object(owner, attribute, function))
        yield shares.seconds


def _cuda() -> Any:
    """`torch.cuda` where this process uses it: without networks PyTorch is not imported."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def wait_for_gpu() -> None:
    """Until all that was given to the GPU is done; at once where there is none."""
    if (cuda := _cuda()) is not None:
        cuda.synchronize()


@contextlib.contextmanager
def gpu_memory() -> Iterator[list[int]]:
    """Fills a list with the most bytes that PyTorch had allocated while the block ran.

    It stays empty where no GPU is used. The product starts PyTorch's own count anew, to plan.
    """
    most: list[int] = []
    if (cuda := _cuda()) is None:
        yield most
        return
    start_anew = cuda.reset_peak_memory_stats
    peaks = [0]

    def note_first(*device: Any) -> None:
        peaks.append(cuda.max_memory_allocated(*device))
        start_anew(*device)

    start_anew()
    with mock.patch.object(cuda, "reset_peak_memory_stats", note_first):
        yield most
    most.append(max(*peaks, cuda.max_memory_allocated()))
