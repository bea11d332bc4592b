"""The benchmark of scaling: what it reads in a program's text, and what it keeps."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scaling
from benchmarks.parts import hlo

# Cut from what XLA wrote of a gradient through a scan of six layers, on meshes of 4 and 8.
PROGRAM = """\
HloModule jit_f, is_scheduled=true, num_partitions=4

%add.clone (x.3: f32[], y.1: f32[]) -> f32[] {
  ROOT %add.0 = f32[] add(%x.3, %y.1)
}

%region_0.1_spmd (param: (s32[], f32[4,32], /*index=5*/f32[6,16,32])) -> (s32[], f32[4,32]) {
  %all-gather = f32[32,32]{1,0} all-gather(%fusion), channel_id=1, \
replica_groups=mesh['axis_0'=2,'axis_1'=1,'axis_2'=2], device_ids=([2,2]T(1,0)) {'axis_0'}, \
dimensions={0}, metadata={op_name="jit(f)/jvp()/while/body/closed_call/dot_general"}
}

%region_1.2_spmd (param.1: (s32[], f32[4,32])) -> pred[] {
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}

ENTRY %main.5_spmd (param.2: f32[6,16,32], param.3: f32[4,32]) -> f32[6,16,32] {
  %while.11 = (s32[], f32[4,32]{1,0}) while(%tuple.31), condition=%region_1.2_spmd, \
body=%region_0.1_spmd, metadata={op_name="jit(f)/jvp()/while" stack_frame_id=3}, \
backend_config={"known_init_step":{"init":"0","step":"1"},"known_trip_count":{"n":"6"}}
  %all-reduce.1 = (bf16[16,16]{1,0}, f32[]) all-reduce(%a, %b), channel_id=4, \
replica_groups=[2,2]<=[2,2]T(1,0), to_apply=%add.clone, metadata={op_name="jit(f)/grad"}
  %all-gather-start = (f32[8]{0}, f32[32]{0}) all-gather-start(%c), channel_id=5, \
replica_groups={{0,1,2,3}}, dimensions={0}
  %permute = u8[64]{0} collective-permute(%d), channel_id=6, source_target_pairs={{0,1},{1,0}}
}
"""


def test_what_a_loop_exchanges_counts_as_often_as_it_turns():
    found = {one.kind: one for one in hlo.collectives(PROGRAM, 4)}
    gather = [one for one in hlo.collectives(PROGRAM, 4) if one.kind == "all-gather"]
    assert [(one.size, one.group, one.times) for one in gather] == [(4096, 2, 6), (128, 4, 1)]
    assert gather[0].name == "jit(f)/jvp()/while/body/closed_call/dot_general"
    assert found["all-reduce"].size == 2 * 16 * 16 + 4 and found["all-reduce"].group == 2
    assert [one.turns for one in hlo.loops(PROGRAM)] == [6]


@pytest.mark.parametrize(
    ("kind", "received"),
    [
        ("all-reduce", 2 * 75),  # each part goes around twice
        ("all-gather", 75),
        ("reduce-scatter", 300),  # the result is a fourth of what is summed
        ("all-to-all", 75),
        ("collective-permute", 100),
    ],
)
def test_bytes_that_a_ring_of_four_brings(kind: str, received: float):
    assert hlo.Collective(kind, size=100, group=4, times=3, name="").received == 3 * received


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,2},{1,3}}", 2),
        ("[2,4]<=[8]", 4),
        ("mesh['a'=2,'b'=4] {'a','b'}", 8),
        ("mesh['a'=2,'b'=8], device_ids=([2,8]T(1,0)) {'b':(1)2}", 2),
        ("{}", 16),
    ],
)
def test_groups_are_read_in_every_spelling(groups: str, size: int):
    line = f"  %x = f32[4] all-gather(%a), replica_groups={groups}, dimensions={{0}}"
    program = "ENTRY %m (a: f32[2]) -> f32[4] {\n" + line + "\n}\n"
    [found] = hlo.collectives(program, 16)
    assert found.group == size


def test_text_that_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.collectives("all-reduce", 2)


def test_cases_share_batches_in_whole_groups():
    for case in scaling.memory_cases():
        assert case.batch == 256 and case.batch % (case.group * case.fsdp) == 0
    sizes = {case.devices: case.batch // case.devices for case in scaling.weak_cases(quick=False)}
    assert sizes[1] == 8 and max(sizes) == 8


def row(case: scaling.Case) -> dict[str, object]:
    received = {"all-reduce": 3 * 2**20, "all-gather": 2**20, "all-to-all": 2**19}
    sizes = {"arguments": 2**30, "temporary": 3 * 2**30, "flops": 5e9, "parameters": 2**20}
    return {"case": vars(case), "received": received} | sizes


def test_lines_of_the_tables():
    case = scaling.Case("vit3d", "L", fsdp=4)
    line = scaling.memory_table([row(case)]).splitlines()[-1]
    assert line == "| ViT3D-L | none | fsdp=4 | 64 | 1.0 | 3.0 | 4.0 | 0.0 |"
    line = scaling.weak_table([row(scaling.Case(data=2, tensor=2))]).splitlines()[-1]
    assert line == "| data=2 x tensor=2 | 256 | 5.0 | 4.5 | 3.0 | 1.0 | 0.5 |"


@pytest.mark.parametrize(
    ("case", "changes", "broken"),
    [
        (scaling.Case(data=4), {}, None),  # of 4 MiB, 6 need to come, and 4.5 do
        (scaling.Case(data=4), {"parameters": 2**19}, "4.5 MiB reach a device, 3.0 are needed"),
        (scaling.Case(fsdp=4), {"parameters": 2**19}, None),  # parameters are gathered, too
        (scaling.Case(fsdp=4), {"parameters": 2**18}, "4.5 MiB reach a device, 3.0 are needed"),
        (scaling.Case(fsdp=4), {"flops": 5.3e9}, "1.060 times the FLOPs of one device"),
        (scaling.Case(fsdp=4), {"flops": 4.7e9}, "0.940 times the FLOPs of one device"),
        (scaling.Case(data=2, tensor=2), {"flops": 3e9, "parameters": 1}, None),
        (scaling.Case(data=2, tensor=2), {"flops": 5.3e9}, "1.060 times the FLOPs of one device"),
    ],
)
def test_bounds_of_weak_scaling(case: scaling.Case, changes: dict[str, float], broken: str | None):
    alone = row(scaling.Case()) | {"received": {}}
    found = scaling.broken_bounds([alone, row(case) | changes])
    assert found == ([f"{case.mesh}: {broken}"] if broken else [])


@pytest.fixture
def measured(monkeypatch) -> list[int]:
    """The devices of each case that is measured, which costs nothing here."""
    devices: list[int] = []

    def in_process(case: scaling.Case) -> dict[str, object]:
        devices.append(case.devices)
        return row(case) | {"received": {}}

    monkeypatch.setattr(scaling, "in_process", in_process)
    monkeypatch.setattr(scaling, "commit", lambda: "abc")
    return devices


def test_rows_that_are_there_are_not_measured_again(tmp_path: Path, monkeypatch, measured, capsys):
    whole = scaling.in_process

    def stopped(case: scaling.Case) -> dict[str, object]:
        if len(measured) == 1:
            raise KeyboardInterrupt
        return whole(case)

    arguments = ["--quick", f"--json={tmp_path}/rows.json"]
    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(scaling, "in_process", stopped)
        scaling.main(arguments)
    assert scaling.main(arguments) == 0
    assert measured == [1, 2, 2]  # the first row stayed
    told = capsys.readouterr().out
    assert "fsdp=2 | 16 | 5.0" in told and "CPU compiler, commit abc" in told
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [(one["case"]["data"], one["commit"]) for one in rows] == [(n, "abc") for n in (1, 2, 1)]


@pytest.mark.parametrize(("before", "after"), [("abc", "abd"), ("abc+", "abc+"), ("abc", "abc+")])
def test_rows_of_other_code_are_measured_again(tmp_path, monkeypatch, measured, before, after):
    for commit in (before, after):
        monkeypatch.setattr(scaling, "commit", lambda commit=commit: commit)
        scaling.main(["--quick", f"--json={tmp_path}/rows.json"])
    assert measured == [1, 2, 2] * 2
    assert {one["commit"] for one in json.loads((tmp_path / "rows.json").read_text())} == {after}


def test_a_bound_that_breaks_is_told_by_the_exit_code(monkeypatch, measured, capsys):
    whole = scaling.in_process

    def too_much(case: scaling.Case) -> dict[str, object]:
        return whole(case) | ({"flops": 6e9} if case.fsdp == 2 else {})

    monkeypatch.setattr(scaling, "in_process", too_much)
    assert scaling.main(["--quick"]) == 1
    assert "DOES NOT HOLD: fsdp=2: 1.200 times" in capsys.readouterr().out


@pytest.mark.parametrize("case", [*scaling.weak_cases(quick=True), scaling.memory_cases()[6]])
def test_cases_fit_the_recipe(case: scaling.Case):
    settings = scaling.settings_of(case)
    [stream] = settings.data.streams
    assert (stream.batch, stream.packing.group) == (case.batch, case.group)
    assert settings.step.augment is not None
    if case.size == "L":
        assert (stream.packing.rows, stream.packing.slots) == (1, 112 * case.group)
        assert (settings.model.encoder.depth, settings.model.dtype) == (24, "bfloat16")
    else:
        assert settings.model.encoder.unroll == settings.model.encoder.depth


@pytest.mark.slow
def test_nothing_but_parameters_and_gradients_goes_around():
    """Under fsdp, states stay on their device: a layer of which they leave costs far more."""
    case = scaling.Case("trajvit", "small", fsdp=4, batch=32)
    found = scaling.in_process(case)
    needed = scaling.needed_bytes(case, found["parameters"])
    assert needed is not None and sum(found["received"].values()) < 1.2 * needed
