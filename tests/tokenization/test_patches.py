"""The ablations' trackers: patches that are walked, and frames that are not tracked at all."""

from __future__ import annotations

import dataclasses
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.pipeline import PipelineSettings, build
from tokenization.protocols import Clip
from tokenization.segmenters.patches import PatchSegmenter, patch_numbers
from tokenization.trackers.none import NoTracker
from tokenization.trackers.patches import PatchTracker, WalkSettings, near, walk
from tokenization.trajectories import VideoInfo
from tokenization.video import Frames


def noise(t: int, h: int, w: int) -> np.ndarray:
    """Frames of random blocks of 4x4 pixels."""
    coarse = np.random.default_rng(0).integers(0, 256, (t, -(-h // 4), -(-w // 4), 3), np.uint8)
    return coarse.repeat(4, 1).repeat(4, 2)[:, :h, :w]


def plain_walk(x: np.ndarray, start: np.ndarray, near: np.ndarray, own: WalkSettings) -> np.ndarray:
    """The formula of the module, patch by patch."""
    t, p, _ = x.shape
    masses = np.zeros((t, p, start.max() + 1))
    masses[0] = np.eye(start.max() + 1)[start]
    for f in range(1, t):
        asked = {0, *range(max(0, f - own.context), f)}
        for j in range(p):
            pairs = [
                (float(x[g, i] @ x[f, j]), g, i) for g in asked for i in range(p) if near[j, i]
            ]
            pairs = sorted(pairs, reverse=True)[: own.nearest]
            weights = np.exp(np.array([like for like, *_ in pairs]) / own.temperature)
            for weight, (_, g, i) in zip(weights / weights.sum(), pairs, strict=True):
                masses[f, j] += weight * masses[g, i]
    return masses


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    context=st.integers(1, 3),
    nearest=st.integers(1, 12),
    radius=st.sampled_from([1.0, 16.0, 40.0]),
)
def test_the_walk_is_its_formula(seed, context, nearest, radius):
    rng = np.random.default_rng(seed)
    own = WalkSettings(context=context, nearest=nearest, radius=radius, temperature=0.3)
    x = rng.normal(size=(4, 6, 5)).astype(np.float32)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    start, neighbours = rng.permutation(6) % 4, near(32, 48, own)
    masses = np.stack(list(walk(x, start, neighbours, own)))
    np.testing.assert_allclose(masses, plain_walk(x, start, neighbours, own), atol=1e-5)
    np.testing.assert_allclose(masses.sum(-1), 1, atol=1e-5)


def test_memory_does_not_grow_with_the_frames():
    """Of 400 patches a frame each label's mass is 640 kB, and of all 60 frames 38 MB."""
    own = WalkSettings(context=2)
    x = np.random.default_rng(0).normal(size=(60, 400, 4)).astype(np.float32)
    steps = walk(x, np.arange(400), near(320, 320, own), own)
    next(steps), next(steps)
    tracemalloc.start()
    for _ in steps:
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 16e6


def test_patches_follow_what_moves():
    scene = noise(1, 64, 160)[0]
    frames = np.stack([scene[:, 16 * i : 16 * i + 96] for i in range(4)])
    grid = PatchSegmenter().segment(frames[:1])[0]
    (labels,) = PatchTracker().track([Clip(frames, {0: grid})])
    for i in range(4):  # what the camera shows of the first frame has moved left by i patches
        np.testing.assert_array_equal(labels[i][:, : 96 - 16 * i], grid[:, 16 * i :])


def test_patches_follow_the_features_that_are_given():
    """Against their colours: these tell each patch of a frame the one to its right before."""

    def shifted(frames, size):
        count = frames.shape[1] // size * (frames.shape[2] // size)
        return np.stack(
            [np.roll(np.eye(count, dtype=np.float32), t, 0) for t in range(len(frames))]
        )

    frames = noise(1, 16, 64).repeat(3, 0)
    grid = PatchSegmenter().segment(frames[:1])[0]
    own = PipelineSettings(segmenter="patches", tracker="patches")
    given = dataclasses.replace(build(own), tracker=PatchTracker(own.walk, shifted))
    (labels,) = given.tracker.track([Clip(frames, {0: grid})])
    rows = [labels[t, 0, ::16].tolist() for t in range(3)]
    assert rows == [[1, 2, 3, 4], [4, 1, 2, 3], [3, 4, 1, 2]]
    (by_colour,) = build(own).tracker.track([Clip(frames, {0: grid})])
    np.testing.assert_array_equal(by_colour, grid[None].repeat(3, 0))


def test_a_patch_has_the_label_of_most_of_its_pixels():
    first = np.ones((32, 32), np.int32)
    first[:, 20:] = 7
    frames = noise(1, 32, 32).repeat(2, 0)
    (labels,) = PatchTracker().track([Clip(frames, {0: first})])
    np.testing.assert_array_equal(labels[0], first)
    np.testing.assert_array_equal(labels[1], np.where(np.arange(32) < 16, 1, 7)[None].repeat(32, 0))


def test_the_grid_covers_sizes_that_patches_do_not_divide():
    numbers = patch_numbers(20, 33, 16)
    assert np.bincount(numbers.ravel()).tolist() == [256, 256, 16, 64, 64, 4]
    assert numbers[0, 16] == 1 and numbers[16, 0] == 3


def test_without_a_tracker_no_label_lives_in_two_frames():
    rgb = noise(3, 32, 48)
    (labels,) = NoTracker().track([Clip(rgb, dict(enumerate(PatchSegmenter().segment(rgb))))])
    seen = [set(np.unique(frame)) for frame in labels]
    assert [len(one) for one in seen] == [6, 6, 6] and len(set.union(*seen)) == 18
    with pytest.raises(ValueError, match=r"frame 1; set split='stride' and clip_limit=1"):
        NoTracker().track([Clip(rgb, {0: labels[0]})])


@pytest.mark.parametrize(
    ("tracker", "changes", "segments", "lives"),
    [
        ("patches", {}, 12, 3),
        ("none", {"split": "stride", "clip_limit": 1}, 36, 1),
    ],
)
def test_both_run_as_pipelines(tracker, changes, segments, lives):
    rgb, video = noise(1, 48, 64).repeat(3, 0), VideoInfo("still", 64, 48, 1.0, 3.0)
    frames = Frames(rgb, np.arange(3, dtype=np.float32), np.arange(3), video)
    presence = (
        build(PipelineSettings(segmenter="patches", tracker=tracker, **changes))
        .tokenize(frames)
        .presence()
    )
    assert len(presence) == segments
    np.testing.assert_array_equal(presence.sum(1), lives)


@pytest.mark.parametrize(
    ("name", "value"), [("patch", 0), ("context", 0), ("radius", 0.0), ("temperature", -1.0)]
)
def test_settings_out_of_range(name, value):
    with pytest.raises(ValueError, match=rf"WalkSettings\.{name} = "):
        dataclasses.replace(WalkSettings(), **{name: value})
