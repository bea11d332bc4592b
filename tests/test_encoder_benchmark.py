"""The encoder benchmark compares round by round, and times what it says."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import nnx

from benchmarks import encoder
from benchmarks.encoder import Bound, bounds, unchecked
from benchmarks.parts import encoder_jax
from benchmarks.parts.encoder_jax import block_labels
from benchmarks.parts.timing import Contender, Timing, peak_growth, race, ratio, share, table
from trajvit_jax.models.flops import count_flops
from trajvit_jax.models.settings import SIZES, EncoderSettings, ResNetSettings, TrajViTSettings
from trajvit_jax.models.video_text import VideoTextModel


def timing(stage, name, *seconds):
    return Timing(stage, name, seconds, flops=2e9, memory=None, traffic=None)


def test_the_ceiling_multiplies_numbers_that_differ():
    """A GPU multiplies equal ones faster than those of any model."""
    product, _ = encoder.ceilings("float32")
    assert len(np.unique(np.asarray(product.run())[0])) > 1000


TIMES = [
    # The third round met another program: both sides took long.
    timing("pooling", "plain", 10.0, 12.0, 900.0),
    timing("pooling", "fast", 1.0, 1.0, 100.0),
    timing("rest", "fast", 1.0, 2.0, 100.0),
    timing("forward", "fast", 10.0, 10.0, 1000.0),
]


def test_ratios_are_medians_of_the_rounds_quotients():
    assert ratio(TIMES, ("pooling", "plain"), ("pooling", "fast")) == 10.0


def test_shares_are_medians_too():
    parts = [("pooling", "fast"), ("rest", "fast")]
    assert share(TIMES, parts, ("forward", "fast")) == 0.2


def test_what_was_not_measured_has_no_ratio():
    with pytest.raises(KeyError):
        ratio(TIMES, ("pooling", "plain"), ("pooling", "none"))


def test_contenders_run_in_turn_in_changing_order_and_warm_up_first():
    order = []
    contenders = [Contender("a", name, lambda name=name: order.append(name)) for name in "xyz"]
    found = race(contenders, rounds=5)
    rounds = ["".join(order[start : start + 3]) for start in range(0, 18, 3)]
    assert all(sorted(one) == list("xyz") for one in rounds) and len(set(rounds)) > 2
    assert [one.name for one in found] == ["x", "y", "z"]
    assert all(len(one.seconds) == 5 for one in found)


def test_no_bar_where_nobody_looks(capsys):
    race([Contender("a", "x", lambda: time.sleep(0.01))], rounds=2)
    assert capsys.readouterr().err == ""


def test_time_is_that_of_the_contender():
    slow = Contender("a", "slow", lambda: time.sleep(0.02))
    quick = Contender("a", "quick", lambda: None)
    assert ratio(race([slow, quick], 3), ("a", "slow"), ("a", "quick")) > 10


def test_the_table_gives_what_was_counted_and_a_dash_where_nothing_was():
    text = table([timing("pooling", "fast", 0.5, 0.5, 0.5)])
    assert text.splitlines()[1].split() == ["pooling", "fast", "500.0", "500..500", "-", "4", "-"]
    ceiling = timing("ceiling", "product", 0.25, 0.25, 0.25)
    assert "4 (50%)" in table([ceiling, timing("pooling", "fast", 0.5, 0.5, 0.5)])


def test_bounds_say_which_way_they_go():
    assert str(Bound("x", 3.0, 2)).startswith("holds") and not Bound("x", 1.9, 2).holds
    assert Bound("x", 0.1, 0.15, at_least=False).holds
    assert str(Bound("x", 0.2, 0.15, at_least=False)).startswith("FAILS")


# Seconds and memory of a run that keeps every bound, by a tenth.
KEPT = {
    ("pooling", "fast"): (0.05, 10),
    ("pooling", "reference"): (0.55, 165),
    ("resamplers", "fast"): (0.05, 1),
    ("resamplers", "reference"): (0.165, 1),
    ("forward", "fast"): (0.75, 1),
    ("forward", "as released"): (0.75, 1),
    ("forward", "reference"): (9.0, 1),
    ("forward", "ViT3D"): (3.3, 1),
    ("forward", "PyTorch"): (1.65, 1),
    ("forward", "ViT3D PyTorch"): (1.9, 1),
}


def run_of(changes):
    """Timings of a run in which some contenders took another time or memory."""
    return [
        Timing(*name, seconds=(seconds,) * 3, flops=None, memory=memory, traffic=None)
        for name, (seconds, memory) in (KEPT | changes).items()
    ]


@pytest.mark.parametrize(
    ("size", "with_torch", "count"), [("B", True, 6), ("B", False, 4), ("L", True, 4)]
)
def test_a_run_that_keeps_every_bound_says_so(size, with_torch, count):
    found = bounds(size, run_of({}), with_torch=with_torch)
    assert len(found) == count and all(bound.holds for bound in found)


@pytest.mark.parametrize(
    ("size", "changes", "text"),
    [
        ("B", {("pooling", "reference"): (0.49, 165)}, "pooling, times faster"),
        ("B", {("resamplers", "reference"): (0.149, 1)}, "resamplers, times faster"),
        (
            "B",
            {("resamplers", "fast"): (0.07, 1), ("resamplers", "reference"): (0.3, 1)},
            "share of the forward pass",
        ),
        ("B", {("forward", "ViT3D"): (2.9, 1)}, "than our ViT3D"),
        ("B", {("forward", "PyTorch"): (1.49, 1)}, "released formulation"),
        ("B", {("forward", "ViT3D PyTorch"): (1.7, 1)}, "the faster ViT3D"),
        ("L", {("pooling", "reference"): (0.55, 149)}, "less temporary memory"),
    ],
)
def test_each_bound_fails_alone(size, changes, text):
    failed = [bound for bound in bounds(size, run_of(changes), with_torch=True) if not bound.holds]
    assert len(failed) == 1 and text in failed[0].text


def test_what_a_run_leaves_out_is_named():
    full = {"with_torch": True, "on_cpu": True}
    assert unchecked(["B", "L"], encoder.PARTS, **full) == []
    (memory,) = unchecked(["B"], ["forward"], **full)
    assert "--sizes=L" in memory
    (forward,) = unchecked(["L"], ["forward"], **full)
    assert "--sizes=B" in forward
    (everything,) = unchecked(["B", "L"], ["training"], **full)
    assert "--only=forward" in everything
    (torch,) = unchecked(["B", "L"], ["forward"], with_torch=False, on_cpu=True)
    assert "released formulation" in torch and "fastest ViT3D" in torch
    assert unchecked(["B", "L"], ["forward"], with_torch=False, on_cpu=False) == [
        "all bounds: they are for CPUs"
    ]


def test_bounds_are_of_what_is_timed(monkeypatch):
    """Ours, by the names under which they are made."""

    def named(stage, name, function, module, *inputs, counted=None):
        return Contender(stage, name, lambda: None)

    model = SimpleNamespace(
        for_cpu=lambda: SimpleNamespace(encoder=SimpleNamespace(settings=SMALL))
    )
    monkeypatch.setattr(encoder_jax, "contender", named)
    monkeypatch.setattr(encoder_jax, "build", lambda settings: model)
    clip = encoder_jax.Clip.random(2, 32, 10, 4)
    made = encoder_jax.forwards(SMALL, clip, 10, dtype="float32")
    assert {one for one in KEPT if one[0] == "forward" and "PyTorch" not in one[1]} == {
        (one.stage, one.name) for one in made
    }


SMALL = EncoderSettings(width=16, depth=3, heads=2, mlp=32)


@pytest.fixture
def small_resnet(monkeypatch):
    resnet = ResNetSettings(8, (8,), (1,))
    monkeypatch.setattr(
        encoder_jax, "TrajViTSettings", functools.partial(TrajViTSettings, resnet=resnet)
    )


@pytest.mark.slow
@pytest.mark.usefixtures("small_resnet")
def test_a_training_step_goes_on_from_the_one_before():
    clip = encoder_jax.Clip.random(2, 32, 10, 4)
    made = list(encoder_jax.training(SMALL, clip, 10, dtype="float32"))
    assert [(one.stage, one.name) for one in made] == [
        ("train step", name) for name in ("fast", "reference", "ViT3D")
    ]
    for one in made:
        assert one.flops and one.memory
        found = []
        for _ in range(2):  # a state's memory becomes the next one's: read it before that
            state = one.run()
            found.append((int(state.step), np.array(jax.tree.leaves(state.params)[0])))
        (first, before), (second, after) = found
        assert (first, second) == (1, 2) and np.abs(after - before).max() > 0


@pytest.mark.usefixtures("small_resnet")
def test_what_is_computed_again_is_no_work_of_the_model():
    clip = encoder_jax.Clip.random(2, 32, 10, 4)

    def flops(form, remat):
        sizes = dataclasses.replace(SMALL, remat=remat)
        settings = encoder_jax.settings_of(sizes, "trajvit", clip, 10, dtype="float32")
        model = nnx.eval_shape(lambda: form(VideoTextModel(settings, rngs=nnx.Rngs(0))))
        shapes = (jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (clip.video, clip.labels))
        return count_flops(*encoder_jax._pure(encoder_jax.forward_backward, model), *shapes)

    once = flops(encoder_jax.counted_as, "none")
    assert flops(encoder_jax.counted_as, "layers") == once
    assert flops(VideoTextModel.for_cpu, "layers") > once > flops(lambda model: model, "none")


@pytest.mark.slow
def test_the_quick_run_runs_everything_and_has_what_bounds_are_of(tmp_path):
    report = tmp_path / "report.json"
    assert encoder.main(["--quick", "--no-torch", f"--json={report}"]) == 0
    timed = json.loads(report.read_text("utf-8"))["quick"]["timings"]
    names = {(one["stage"], one["name"]) for one in timed}
    assert {one for one in KEPT if "PyTorch" not in one[1]} <= names
    assert {("train step", name) for name in ("fast", "reference", "ViT3D")} <= names


def test_labels_show_as_many_segments_a_frame_as_asked():
    labels = block_labels(4, 56, 150, 60)
    assert labels.shape == (1, 4, 56, 56)
    assert [len(np.unique(frame)) for frame in labels[0]] == [64] * 4
    assert labels.min() >= 1 and labels.max() <= 150


def test_growth_sees_what_is_allocated_and_freed_again():
    growth = peak_growth(lambda: np.ones(1 << 25).sum())  # 256 MiB
    if growth is None:
        pytest.skip("this system does not tell a process its peak memory")
    assert 0.9 * (1 << 28) < growth < 2 * (1 << 28)


@pytest.mark.slow
def test_stages_are_timed_with_what_they_compute():
    clip = encoder_jax.Clip.random(2, 32, 10, 4)
    found = encoder_jax.stages(SIZES["S"], clip, 10, dtype="float32")
    timings = race(found, 1)
    assert {one.stage for one in timings} == {"resnet", "pooling", "resamplers", "transformer"}
    assert all(one.flops and one.memory is not None for one in timings)
    by_name = {(one.stage, one.name): one.flops for one in timings}
    # A stack counts like its separate layers: 12 of them, 24 d^2 a token and attention beside.
    assert by_name["transformer", "stacked"] == by_name["transformer", "separate"]
    assert by_name["transformer", "separate"] > 12 * 24 * 384**2 * 11
