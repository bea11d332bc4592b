"""What launch/run_host.sh sets on hosts with GPUs, tried where there may be none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

LAUNCH = Path(__file__).parents[1] / "launch"


def gpu_environment(
    per_host: int = 1, *, meminfo: Path = Path("/proc/meminfo"), **env: str
) -> dict[str, str]:
    """What run_host.sh adds to an environment on a host with GPUs; this one may have none."""
    text = (LAUNCH / "run_host.sh").read_text("utf-8")
    functions = re.findall(r"^(?:xla_flag|gpu_environment)\(\) \{\n.*?^\}\n", text, re.M | re.S)
    assert len(functions) == 2
    body = "".join(functions).replace("/proc/meminfo", str(meminfo))
    script = f"interface='' workdir=/run per_host={per_host}\n{body}gpu_environment\nenv"
    plain = {"PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-uc", script], env=plain | env, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    return {name: text for name, text in found.items() if env.get(name) != text}


@pytest.mark.parametrize("name", ["XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"])
def test_memory_of_gpus_has_one_name(name):
    """JAX ends at a fraction under both."""
    assert gpu_environment()["XLA_PYTHON_CLIENT_MEM_FRACTION"] == "0.92"
    assert not [one for one in gpu_environment(**{name: "0.8"}) if "MEM_FRACTION" in one]


@pytest.mark.parametrize(
    ("host", "per_host", "limit"), [(2048, 1, "1024"), (2048, 8, "128"), (2048, 16, None)]
)
def test_checkpoints_get_pinned_memory_of_the_host(tmp_path, host, per_host, limit):
    """Half of the host's GB for all of its processes, where that is more than XLA's 64."""
    (tmp_path / "meminfo").write_text(f"MemTotal:       {host << 20} kB\nMemFree:  1 kB\n")
    where, name = {"meminfo": tmp_path / "meminfo"}, "XLA_PJRT_GPU_HOST_MEMORY_LIMIT_GB"
    assert gpu_environment(per_host, **where).get(name) == limit
    for set_already in (name, "XLA_PJRT_GPU_HOST_MEMORY_PREALLOCATE"):
        assert name not in gpu_environment(per_host, **where, **{set_already: "1"})


def test_every_program_is_kept_for_a_restart():
    found, seconds = gpu_environment(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
    assert found["JAX_COMPILATION_CACHE_DIR"] == "/run/compiled" and found[seconds] == "0"
    assert seconds not in gpu_environment(**{seconds: "2"})


def test_xla_knows_the_flags_that_are_set_on_gpus():
    """It ends a program at one that it does not know; those of GPUs are known on CPUs, too."""
    text = (LAUNCH / "run_host.sh").read_text("utf-8")
    flags = re.findall(r"xla_flag (--xla_gpu\S+)", text)
    assert len(flags) >= 2
    done = subprocess.run(
        [sys.executable, "-c", "import jax; jax.devices()"],
        env=os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
