"""Key frames against the paper's definitions, written out plainly."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization import keyframes
from tokenization.keyframes import KeyframeSettings

OFF = 1e9


def noise(seed, frames=12, jump=60):
    """Frames of a few flat blocks, whose colours drift by steps of very different size."""
    rng = np.random.default_rng(seed)
    step = rng.choice([1, 8, 20, jump], size=(frames, 1, 1, 1)) * rng.normal(size=(frames, 6, 8, 3))
    colours = 127 + np.cumsum(step, axis=0)
    return np.clip(colours, 0, 255).astype(np.uint8).repeat(4, 1).repeat(4, 2)


def hsv_scores(rgb):
    hsv = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2HSV) for frame in rgb]).astype(float)
    return np.abs(np.diff(hsv, axis=0)).mean(axis=(1, 2)).mean(axis=-1)


def rgb_scores(rgb):
    return np.abs(np.diff(rgb.astype(float).mean(axis=(1, 2, 3))))


def luma_scores(rgb):
    """Pearson's correlation of the histograms of Y (128 bins)."""
    luma = [cv2.cvtColor(frame, cv2.COLOR_RGB2YCrCb)[..., 0] for frame in rgb]
    counts = [np.bincount((y // 2).ravel(), minlength=128) for y in luma]
    return np.array([np.corrcoef(a, b)[0, 1] for a, b in itertools.pairwise(counts)])


def alone(rgb, **thresholds):
    """What one detector says: the others can never vote."""
    off = {"hsv_threshold": OFF, "rgb_threshold": OFF, "luma_threshold": 1.0}
    # A drop of 1 is reached by uncorrelated histograms too, so luma is silenced as `literal` 0.
    if "luma_threshold" not in thresholds:
        off |= {"luma_rule": "literal", "luma_threshold": 0.0}
    return keyframes.detect(rgb, KeyframeSettings(**off | thresholds, votes=1))[1:]


@pytest.mark.parametrize("seed", range(4))
def test_hsv_is_the_mean_over_three_channels(seed):
    scores = hsv_scores(noise(seed))
    threshold = float(np.median(scores)) + 1e-6
    luma = luma_scores(noise(seed)) <= 0
    expected = (scores >= threshold) | luma
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(alone(noise(seed), hsv_threshold=threshold), expected)


@pytest.mark.parametrize("seed", range(4))
def test_rgb_is_the_jump_of_the_mean_intensity(seed):
    scores = rgb_scores(noise(seed))
    threshold = float(np.median(scores)) + 1e-6
    luma = luma_scores(noise(seed)) <= 0
    expected = (scores >= threshold) | luma
    assert expected.any() and not expected.all()
    np.testing.assert_array_equal(alone(noise(seed), rgb_threshold=threshold), expected)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rule", "threshold", "highest"), [("drop", 0.15, 0.85), ("literal", 0.15, 0.15)]
)
def test_luma_is_the_correlation_of_histograms(seed, rule, threshold, highest):
    rgb = noise(seed)
    correlation = luma_scores(rgb)
    assert np.abs(correlation - highest).min() > 1e-4
    got = alone(rgb, luma_rule=rule, luma_threshold=threshold)
    np.testing.assert_array_equal(got, correlation <= highest)


def test_the_two_readings_of_the_luma_threshold_differ():
    correlation = np.concatenate([luma_scores(noise(seed)) for seed in range(4)])
    assert np.any((correlation <= 0.85) & (correlation > 0.15))


@pytest.mark.parametrize("votes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_votes_of_the_paper(seed, votes):
    rgb = noise(seed)
    count = (
        (hsv_scores(rgb) >= 27).astype(int) + (rgb_scores(rgb) >= 12) + (luma_scores(rgb) <= 0.85)
    )
    got = keyframes.detect(rgb, KeyframeSettings(votes=votes))
    np.testing.assert_array_equal(got, [True, *(count >= votes)])


@pytest.mark.parametrize("seed", range(4))
def test_votes_of_the_released_program(seed):
    rgb = noise(seed)
    hsv = hsv_scores(rgb)
    # The adaptive detector compares a frame with the mean of its two neighbours, so it needs
    # both: the first frame's score is 0, and the last frame never gets a vote.
    scores = np.array([0.0, *hsv])
    neighbours = (scores[:-2] + scores[2:]) / 2
    adaptive = np.append((scores[1:-1] >= neighbours) & (scores[1:-1] >= 10), False)
    count = adaptive.astype(int) + (hsv >= 27) + (luma_scores(rgb) <= 0.85)
    got = keyframes.detect(rgb, KeyframeSettings(detectors="released"))
    np.testing.assert_array_equal(got, [True, *(count >= 2)])


def test_a_cut_is_found_and_a_still_is_not():
    dark = np.zeros((3, 32, 32, 3), np.uint8)
    dark[:, 8:16] = (40, 60, 30)
    bright = np.full((3, 32, 32, 3), 200, np.uint8)
    bright[:, :, 4:9] = (250, 120, 180)
    got = keyframes.detect(np.concatenate([dark, bright]))
    np.testing.assert_array_equal(got, [True, False, False, True, False, False])


def test_every_frame_may_be_a_cut():
    frames = np.zeros((6, 16, 16, 3), np.uint8)
    frames[1::2] = (255, 200, 220)
    assert keyframes.detect(frames).all()


@pytest.mark.parametrize("shape", [(1, 4, 4, 3), (3, 1, 1, 3)])
def test_smallest_videos(shape):
    got = keyframes.detect(np.zeros(shape, np.uint8))
    np.testing.assert_array_equal(got, np.arange(shape[0]) == 0)


def test_empty_video():
    with pytest.raises(ValueError, match="empty video"):
        keyframes.detect(np.zeros((0, 4, 4, 3), np.uint8))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"votes": 0}, "votes"),
        ({"votes": 4}, "votes"),
        ({"luma_threshold": 1.5}, "luma_threshold"),
        ({"luma_rule": "fall"}, "'drop' or 'literal'"),
        ({"detectors": "all"}, "'paper' or 'released'"),
    ],
)
def test_wrong_settings(annotations_unchecked, wrong, message):
    with pytest.raises(ValueError, match=message):
        KeyframeSettings(**wrong)


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(1, 12))
def test_split_clips(rest, limit):
    starts = np.array([True, *rest])
    before = starts.copy()
    got = keyframes.split_clips(starts, limit)
    np.testing.assert_array_equal(starts, before)
    assert (got >= starts).all()
    lengths = np.diff([*np.flatnonzero(got), len(got)])
    assert lengths.max() <= limit
    # Nothing is cut that needed no cut.
    old = np.diff([*np.flatnonzero(starts), len(starts)])
    assert (got.sum() > starts.sum()) == (old.max() > limit)


def test_split_at_the_midpoint():
    starts = keyframes.stride(16, 16)
    np.testing.assert_array_equal(np.flatnonzero(keyframes.split_clips(starts, 8)), [0, 8])
    np.testing.assert_array_equal(np.flatnonzero(keyframes.split_clips(starts, 7)), [0, 4, 8, 12])
    odd = keyframes.stride(5, 5)
    np.testing.assert_array_equal(np.flatnonzero(keyframes.split_clips(odd, 4)), [0, 2])


def test_split_needs_a_limit_and_a_start():
    with pytest.raises(ValueError, match="limit of 0"):
        keyframes.split_clips(keyframes.stride(4, 4), 0)
    with pytest.raises(ValueError, match="frame 0"):
        keyframes.split_clips(np.array([False, True]), 2)


def test_stride():
    np.testing.assert_array_equal(np.flatnonzero(keyframes.stride(10, 4)), [0, 4, 8])
    assert keyframes.stride(3, 1).all()
    with pytest.raises(ValueError, match="every=0"):
        keyframes.stride(3, 0)
