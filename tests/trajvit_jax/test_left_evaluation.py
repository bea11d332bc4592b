"""An evaluation can be left early, by several processes as by one."""

from __future__ import annotations

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("what", ["retrieval", "head"])
@pytest.mark.parametrize(("processes", "batches"), [(1, 2), (2, 3)])
def test_all_processes_leave_at_one_place(
    start_script, printed, free_address, what, processes, batches
):
    """Of two, the other hears of it a batch later."""
    cluster = (free_address(), processes) if processes > 1 else ()
    members = [
        start_script(
            *("left_evaluation.py", what, *(cluster and (*cluster, number))),
            devices=2,
            JAX_DISABLE_MOST_OPTIMIZATIONS="1",
        )
        for number in range(processes)
    ]
    for member in members:
        assert printed(member) == {"left after": batches, "third": 1 / 3}  # to the last bit
