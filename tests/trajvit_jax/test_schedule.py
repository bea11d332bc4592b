"""The schedule: streams, sources and records by the number of the step alone."""

from __future__ import annotations

import collections

import numpy as np
import pytest
from grain.experimental import index_shuffle
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from trajvit_jax.config import to_settings
from trajvit_jax.data.packing import PackingSettings
from trajvit_jax.data.schedule import Schedule, SourceSettings, StreamSettings, reads, shares
from trajvit_jax.data.shuffle import places_in_order

FAR = 10**15


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=4), st.sampled_from([0, 7, FAR]))
def test_streams_take_turns_by_weight_and_count_their_steps(weights, start):
    schedule = Schedule(weights)
    expected = [schedule.earlier(start, stream) for stream in range(len(weights))]
    total = sum(weights)
    for step in range(start, start + 3 * total):
        stream, earlier = schedule.turn(step)
        assert earlier == expected[stream]
        expected[stream] += 1
        for other, weight in enumerate(weights):
            # Never far ahead of or behind its share.
            assert abs(expected[other] * total - (step + 1) * weight) <= len(weights) * total
    turns = collections.Counter(schedule.turn(step).stream for step in range(start, start + total))
    assert turns == dict(enumerate(weights))


def test_two_streams_are_spread_evenly():
    schedule = Schedule([6, 2])
    gaps = np.diff([step for step in range(80) if schedule.turn(step).stream == 1])
    assert set(gaps.tolist()) == {4}


@pytest.mark.parametrize("weights", [[], [0, 1], [100_000, 1]])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(ValueError, match="weights >= 1"):
        Schedule(weights)


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 5.0), min_size=1, max_size=5), st.integers(50, 300))
def test_shares_fill_the_batch_and_meet_the_weights(weights, batch):
    counts = shares(weights, batch)
    assert sum(counts) == batch
    exact = np.array(weights) / sum(weights) * batch
    assert np.abs(np.array(counts) - exact).max() < 1


def test_a_source_that_no_batch_would_read_is_refused():
    with pytest.raises(ValueError, match=r"source 1 has 0.08 of a batch of 8"):
        shares([99, 1], 8)


@st.composite
def sources(draw):
    counts = draw(st.lists(st.integers(1, 5), min_size=1, max_size=3))
    return counts, [count + draw(st.integers(0, 12)) for count in counts]


@settings(deadline=None)
@given(sources(), st.sampled_from([0, 3, FAR]))
def test_no_batch_and_no_epoch_has_a_record_twice(mix, start):
    counts, lengths = mix
    seen = collections.defaultdict(list)
    for earlier in range(start, start + 12):
        source, record, epoch = reads(counts, lengths, earlier, seed=0)
        assert np.bincount(source).tolist() == counts
        pairs = list(zip(source.tolist(), record.tolist(), strict=True))
        assert len(set(pairs)) == len(pairs)
        for pair, which in zip(pairs, epoch.tolist(), strict=True):
            assert 0 <= pair[1] < lengths[pair[0]]
            seen[pair[0], which].append(pair[1])
    for records in seen.values():
        assert len(set(records)) == len(records)


def test_an_epoch_is_another_order_of_all_records():
    def epoch(number, **changes):
        steps = range(5 * number, 5 * number + 5)
        arguments = {"seed": 0} | changes
        return np.concatenate([reads([4], [20], step, **arguments).record for step in steps])

    first = epoch(0)
    assert sorted(first) == list(range(20))
    for other in (epoch(1), epoch(0, seed=1), epoch(0, stream=1)):
        assert sorted(other) == list(range(20)) and (other != first).any()
    np.testing.assert_array_equal(epoch(0), first)


@settings(deadline=None, max_examples=2)
@given(st.integers(0, 2**31))
def test_large_sources_are_shuffled_too(seed):
    length, batch = 70_000, 3_500
    records = [reads([batch], [length], step, seed=seed).record for step in range(20)]
    assert len(np.unique(records)) == length
    assert abs(np.corrcoef(np.arange(length), np.concatenate(records))[0, 1]) < 0.05


@settings(deadline=None)
@given(
    st.one_of(
        st.integers(1, 2**40),
        # The cipher gets a bit more at each. Of 4^n + 1 grain's order is none.
        st.builds(lambda bits, more: 2**bits + more, st.integers(1, 40), st.sampled_from([0, 2])),
    ),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_orders_are_those_of_grain_place_by_place(length, seed, data):
    assume((length - 1).bit_count() > 1 or length.bit_length() % 2 == 0)
    places = data.draw(st.lists(st.integers(0, length - 1), min_size=1, max_size=5))
    plain = [index_shuffle(i, max_index=length - 1, seed=seed, rounds=4) for i in places]
    assert places_in_order(np.array(places), length, seed).tolist() == plain


@pytest.mark.parametrize("length", [2**16 - 1, 2**16, 2**16 + 1, 2**16 + 2])
def test_orders_have_every_number_once(length):
    found = places_in_order(np.arange(length), length, seed=3)
    np.testing.assert_array_equal(np.sort(found), np.arange(length))


def test_what_is_left_over_of_an_epoch_differs():
    left = [
        set(range(7)) - set(reads([6], [7], earlier, seed=0).record.tolist())
        for earlier in range(40)
    ]
    assert set().union(*left) == set(range(7))


def test_sources_take_turns_within_a_batch():
    source = reads([4, 4], [4, 4], 0, seed=0).source
    assert source.tolist() == [0, 1] * 4


def test_streams_are_read_from_a_config():
    stream = to_settings(
        StreamSettings,
        {
            "name": "image",
            "sources": [{"path": "a"}, {"path": "b", "split": "all"}],
            "packing": {"slots": 64},
        },
    )
    assert stream.sources == (SourceSettings("a"), SourceSettings("b", "all"))
    assert stream.packing == PackingSettings(slots=64)
    with pytest.raises(ValueError, match=r"sources\[0\].pathh is not a setting.*'path'"):
        to_settings(StreamSettings, {"sources": [{"pathh": "a"}]})


ONE = (SourceSettings("a"),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": ()}, "'video' has no sources"),
        ({"sources": (SourceSettings("a", weight=1.0), SourceSettings("b"))}, "a: 1, b: 0"),
        ({"sources": ONE, "batch": 12, "packing": PackingSettings()}, "groups of 8"),
        ({"sources": ONE, "weight": 0}, "StreamSettings.weight"),
    ],
)
def test_impossible_streams_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        StreamSettings(**changes)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="weight of 'a'"):
        SourceSettings("a", weight=-1.0)
