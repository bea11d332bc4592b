"""The programs that users run: goldens and equalities under XLA's optimizations.

All other tests compile without most of them, which is quick. What the simplifier and fusion do to
differences of squares and to sums of masks shows here alone: some of the same tests, in a process
of their own, for a process compiles one way.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

HERE = Path(__file__).parent
TESTS = {
    "test_golden_trajvit.py": [
        "test_outputs_by_the_public_entry[out/rot1_bb0_eager_once]",
        "test_outputs_by_the_public_entry[out/rot0_bb1_sdpa_twice]",
        "test_label_maps_give_the_released_states[boxes, packed]",
        "test_training_step",
    ],
    "test_pooling.py": [
        "test_fast_equals_reference_in_value_and_gradient[random]",
        "test_fast_equals_reference_in_value_and_gradient[uneven grids]",
        "test_fast_equals_reference_where_normalization_nearly_cancels",
    ],
    "test_resampler.py": [
        "test_fast_attention_equals_reference_in_value_and_gradient[16 frames]",
        "test_fast_attention_is_exact_where_numbers_nearly_cancel[vectors]",
        "test_fast_attention_is_exact_where_numbers_nearly_cancel[features]",
    ],
    "test_optimized.py": ["test_programs_are_optimized_where_it_is_asked_for"],
}


def test_programs_are_optimized_where_it_is_asked_for():
    asked = "TRAJVIT_TEST_OPTIMIZED" in os.environ
    assert jax.config.read("jax_disable_most_optimizations") != asked
    assert not (asked and "fusion_emitters" in os.environ.get("XLA_FLAGS", ""))


@pytest.mark.slow
def test_goldens_and_equalities_hold_in_optimized_programs():
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    flags = re.sub(r"--xla_cpu_use_fusion_emitters=\S+", "", inherited.get("XLA_FLAGS", ""))
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *(f"{HERE / file}::{test}" for file, tests in TESTS.items() for test in tests),
        ],
        env=inherited | {"TRAJVIT_TEST_OPTIMIZED": "1", "XLA_FLAGS": flags.strip()},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    passed = re.search(r"^(\d+) passed in", done.stdout, re.MULTILINE)
    assert passed and int(passed[1]) == sum(map(len, TESTS.values())), done.stdout[-1000:]
