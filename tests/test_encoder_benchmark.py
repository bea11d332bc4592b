"""The encoder benchmark compares round by round, and times what it says."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks import encoder_jax
from benchmarks.encoder import Bound
from benchmarks.encoder_jax import block_labels
from benchmarks.timing import Contender, Timing, peak_growth, race, ratio, share, table
from trajvit_jax.models.settings import SIZES


def timing(stage, name, *seconds):
    return Timing(stage, name, seconds, flops=2e9, memory=None, traffic=None)


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
