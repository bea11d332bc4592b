"""Where a step's time goes: operations by their scopes, and a real step on this machine."""

from __future__ import annotations

import time

import jax
import pytest

from benchmarks.parts.step_profile import (
    IDLE,
    OTHER,
    SCOPES,
    Event,
    Operation,
    operations,
    profile,
    shared,
)
from benchmarks.parts.train_step_run import Attempt, prepare
from trajvit_jax.sharding import MeshSettings, make_mesh
from trajvit_jax.step import make_step

PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_computation (param_0: f32[4]) -> f32[4] {
  %param_0 = f32[4]{0} parameter(0)
  %mul.1 = f32[4]{0} multiply(%param_0, %param_0), metadata={op_name="jit(step)/jvp(tokens)/mul"}
  ROOT %copy.1 = f32[4]{0} copy(%mul.1)
}

ENTRY %main.2 (state: f32[4]) -> f32[4] {
  %state = f32[4]{0} parameter(0)
  %copy_fusion = f32[4]{0} fusion(%state), kind=kLoop, calls=%fused_computation
  %while.3 = (s32[], f32[4]{0}) while(%copy_fusion), condition=%cond, body=%body, \
metadata={op_name="jit(step)/transpose(jvp(transformer))/while"}
  ROOT %add.7 = f32[4]{0} add(%while.3, %state), metadata={op_name="jit(step)/tokenizer/add"}
}
"""


def test_operations_are_of_the_scope_that_they_come_from():
    found = operations(PROGRAM)
    assert found["mul.1"] == Operation("tokens", encloses=False)
    assert found["while.3"] == Operation("transformer", encloses=True)
    assert found["add.7"].part == OTHER  # of no scope by that name


def test_a_fusion_without_a_note_is_of_what_it_fuses():
    assert operations(PROGRAM)["copy_fusion"].part == "tokens"


def test_what_runs_at_the_same_time_shares_it():
    text, loss = Operation("text", encloses=False), Operation("loss", encloses=False)
    loop = Operation("transformer", encloses=True)
    found = shared(
        [Event(0, 10, text), Event(4, 10, loss), Event(12, 20, loop), Event(14, 19, text)]
    )
    assert found == {"text": 4 + 3 + 5, "loss": 3, IDLE: 2, "transformer": 3}


def test_a_program_that_did_not_run_has_no_profile():
    assert profile(lambda: None, PROGRAM, 2) == {}


@pytest.mark.slow
def test_the_parts_of_a_step_are_found_and_add_up():
    attempt = Attempt("trajvit", "debug", 4, group=2, dtype="float32")
    mesh = make_mesh(MeshSettings(1, 1, 1), jax.devices()[:1])
    with jax.set_mesh(mesh):
        own = prepare(attempt, mesh)
        state = own.state
        compiled = make_step(own.tx, own.step, own.model, seed=0).lower(state, own.batch).compile()
        state, measures = jax.block_until_ready(compiled(state, own.batch))
        seen = []

        def run():
            nonlocal state, measures
            seen.append(time.perf_counter())
            state, measures = jax.block_until_ready(compiled(state, own.batch))
            seen.append(time.perf_counter())

        found = profile(run, compiled.as_text(), 2)
    assert list(found) == [*SCOPES, OTHER, IDLE]
    assert all(seconds > 0 for seconds in found.values())
    # From the first operation's start to the last one's end.
    whole, total = seen[-1] - seen[0], 2 * sum(found.values())
    assert total <= 1.01 * whole
    assert found[OTHER] < 0.2 * (sum(found.values()) - found[IDLE])
