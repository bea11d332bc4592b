"""Free memory is the machine's, or what the container's limit leaves."""

from __future__ import annotations

import pytest

from trajvit_jax.run.memory import free_memory

MACHINE = "MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    8000 kB\n"


@pytest.fixture
def machine(tmp_path):
    path = tmp_path / "meminfo"
    path.write_text(MACHINE)
    return path


def test_a_machine_without_limits(machine, tmp_path):
    assert free_memory(machine=machine, group=tmp_path / "none") == 8000 * 1024
    group = tmp_path / "group"
    group.mkdir()
    (group / "memory.max").write_text("max\n")
    (group / "memory.current").write_text("5\n")
    assert free_memory(machine=machine, group=group) == 8000 * 1024


@pytest.mark.parametrize("version", [1, 2])
def test_a_container_s_limit_counts_where_it_is_less(machine, tmp_path, version):
    group = tmp_path / "group"
    place = group / "memory" if version == 1 else group
    place.mkdir(parents=True)
    limit, used, field = (
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        if version == 1
        else ("memory.max", "memory.current", "inactive_file")
    )
    (place / limit).write_text("3000000\n")
    (place / used).write_text("2500000\n")
    assert free_memory(machine=machine, group=group) == 500000
    (place / "memory.stat").write_text(f"anon 9\n{field} 100000\n")  # files that were read
    assert free_memory(machine=machine, group=group) == 600000
    (place / used).write_text("3200000\n")
    (place / "memory.stat").unlink()
    assert free_memory(machine=machine, group=group) == 0


def test_a_system_that_does_not_tell(tmp_path):
    assert free_memory(machine=tmp_path / "none", group=tmp_path / "none") is None


def test_this_machine_has_some():
    found = free_memory()
    assert found is None or 2**20 < found < 2**50
