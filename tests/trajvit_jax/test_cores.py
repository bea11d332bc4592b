"""The cores of a host are shared out among the processes of a run."""

from __future__ import annotations

import pytest

from trajvit_jax.pod import cores


@pytest.mark.parametrize(("per_host", "own"), [(None, 96), ("1", 96), ("8", 12), ("100", 1)])
def test_processes_of_a_host_share_its_cores(per_host, own, monkeypatch):
    monkeypatch.setattr(cores, "available_cores", lambda: 96)
    env = {} if per_host is None else {"TRAJVIT_PROCESSES_PER_HOST": per_host}
    assert cores.own_cores(env) == own


@pytest.mark.parametrize("text", ["0", "two", "-1", ""])
def test_what_is_no_number_of_processes_is_named(text):
    with pytest.raises(ValueError, match=f"TRAJVIT_PROCESSES_PER_HOST .* but is '{text}'"):
        cores.own_cores({"TRAJVIT_PROCESSES_PER_HOST": text})
