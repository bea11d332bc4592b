"""Fixtures that several test files share."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import config as jaxtyping_config

Golden = dict[str, np.ndarray]


@pytest.fixture(scope="session", autouse=True)
def heeded_interrupts() -> None:
    """Background jobs of a shell ignore Ctrl-C, and so would every process that a test starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Golden]:
    """Loads NAME.npz: numbers printed by other programs, see TRAJVIT_GOLDENS."""
    root = Path(os.environ.get("TRAJVIT_GOLDENS", Path(__file__).parent / "goldens"))

    def load(name: str) -> Golden:
        path = root / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"no golden file {path}; set TRAJVIT_GOLDENS to its directory")
        with np.load(path, allow_pickle=False) as file:
            return dict(file)

    return load


@pytest.fixture(scope="session")
def assert_golden() -> Callable[..., None]:
    """Compares floats with a golden array: max|a - b| <= 2e-5 * max(1, max|b|)."""

    def check(actual: object, expected: np.ndarray, name: str = "") -> None:
        actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
        assert actual.shape == expected.shape, f"{name}: {actual.shape} != {expected.shape}"
        error = np.abs(actual - expected).max(initial=0.0)
        bound = 2e-5 * max(1.0, np.abs(expected).max(initial=0.0))
        assert error <= bound, f"{name}: off by {error:.3g}, allowed {bound:.3g}"

    return check


@pytest.fixture
def annotations_unchecked() -> Iterator[None]:
    """Runs as at a user's, where no hook checks annotations before the code can complain."""
    jaxtyping_config.update("jaxtyping_disable", True)
    yield
    jaxtyping_config.update("jaxtyping_disable", False)
