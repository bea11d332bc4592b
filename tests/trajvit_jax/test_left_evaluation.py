"""An evaluation can be left early, by several processes as by one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("left_evaluation.py")


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "batches"), [(1, 2), (2, 3)])
def test_all_processes_leave_at_one_place(processes, batches):
    """Of two, the other hears of it a batch later."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    }
    members = [
        subprocess.Popen(
            [
                *(sys.executable, str(SCRIPT)),
                *([address, str(processes), str(number)] if processes > 1 else []),
            ],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(processes)
    ]
    ended = [member.communicate(timeout=300) for member in members]
    for member, (stdout, stderr) in zip(members, ended, strict=True):
        assert member.returncode == 0, stderr[-3000:]
        told = [line for line in stdout.splitlines() if line.startswith("{")]  # Gloo talks, too
        assert json.loads(told[-1]) == {"left after": batches}
