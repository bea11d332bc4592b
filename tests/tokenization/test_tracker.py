"""The flow tracker on small made scenes: what moves keeps its label, what appears gets one."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenization.protocols import Clip
from tokenization.segmenters.classical import ClassicalSegmenter, ClassicalSettings
from tokenization.trackers.flow import FlowTracker
from tokenization.trackers.flow_settings import FlowSettings
from tokenization.trackers.following import follow_both_ways
from tokenization.trackers.memory import Memory
from tokenization.trackers.optical_flow import dense_flow, origins

SIDE = 96


def texture(seed: int, colour: tuple[int, int, int], height: int, width: int) -> np.ndarray:
    """A coloured surface with soft blobs, so that its motion can be seen."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0.75, 1.25, (height // 6 + 2, width // 6 + 2)).astype(np.float32)
    shade = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(np.array(colour) * shade[..., None], 0, 255).astype(np.uint8)


BACK = texture(0, (120, 125, 110), 2 * SIDE, 3 * SIDE)
RED = texture(1, (210, 40, 40), 24, 24)
BLUE = texture(2, (50, 70, 210), 24, 24)
Place = tuple[np.ndarray, int, int]


def frame(*squares: Place, pan: int = 0) -> np.ndarray:
    """Squares (surface, y, x) before the background, which the camera shows from `pan` on."""
    image = BACK[:SIDE, pan : pan + SIDE].copy()
    for surface, y, x in squares:
        top, left, bottom, right = max(y, 0), max(x, 0), min(y + 24, SIDE), min(x + 24, SIDE)
        if top < bottom and left < right:
            image[top:bottom, left:right] = surface[top - y : bottom - y, left - x : right - x]
    return image


def square(y: int, x: int) -> np.ndarray:
    inside = np.zeros((SIDE, SIDE), bool)
    inside[max(y, 0) : y + 24, max(x, 0) : x + 24] = True
    return inside


def track(frames: list[np.ndarray], *key_frames: int, **settings: float) -> np.ndarray:
    rgb = np.stack(frames)
    at = [0, *key_frames]
    # One segment of the ground.
    segmenter = ClassicalSegmenter(ClassicalSettings(threshold=3.0))
    segments = dict(zip(at, segmenter.segment(rgb[at]), strict=True))
    return FlowTracker(FlowSettings(**settings)).track([Clip(rgb, segments)])[0]  # type: ignore[arg-type]


def owner(labels: np.ndarray, inside: np.ndarray) -> int:
    """The label that a mask belongs to, if their IoU is above 0.7."""
    best = int(np.bincount(labels[inside]).argmax())
    found = labels == best
    assert (found & inside).sum() / (found | inside).sum() > 0.7
    return best


def test_a_moving_square_keeps_its_label():
    at = [(30, 10 + 5 * t) for t in range(8)]
    labels = track([frame((RED, *place)) for place in at])
    assert {owner(labels[t], square(*place)) for t, place in enumerate(at)} == {
        owner(labels[0], square(*at[0]))
    }
    assert (labels > 0).all()


def test_labels_stay_while_the_camera_pans():
    labels = track([frame((RED, 30, 60 - 4 * t), pan=4 * t) for t in range(8)])
    first, last = owner(labels[0], square(30, 60)), owner(labels[7], square(30, 32))
    assert first == last
    ground = np.bincount(labels[0][~square(30, 60)]).argmax()
    assert (labels[7][~square(30, 32)] == ground).mean() > 0.6


def test_what_enters_gets_a_label_above_all_given_ones():
    at = [(30, 100 - 7 * t) for t in range(10)]
    labels = track([frame((BLUE, 60, 4), (RED, *place)) for place in at])
    red = owner(labels[9], square(*at[9]))
    assert red > labels[0].max()
    assert owner(labels[9], square(60, 4)) == owner(labels[0], square(60, 4))
    late = track([frame((BLUE, 60, 4), (RED, *place)) for place in at], 5)
    assert owner(late[9], square(*at[9])) > labels[0].max()


def test_split_points_do_not_change_labels():
    frames = [frame((RED, 30, 10 + 4 * t), (BLUE, 60, 60 - 3 * t)) for t in range(8)]
    whole, split = track(frames), track(frames, 2, 4, 6)
    for t in range(8):
        for mask in (square(30, 10 + 4 * t), square(60, 60 - 3 * t)):
            assert owner(split[t], mask) == owner(whole[t], mask) <= whole[0].max()


def test_a_square_that_was_hidden_comes_back_as_itself():
    wall = np.s_[:, 40:70]
    frames = []
    for t in range(14):
        image = frame((RED, 30, 6 + 6 * t))
        image[wall] = (60, 140, 70)
        frames.append(image)
    labels = track(frames)
    first, last = owner(labels[0], square(30, 6)), owner(labels[13], square(30, 84))
    assert first == last
    assert not (labels[7] == first).any()


def test_ids_and_pixels_of_the_first_frame_are_those_given():
    rgb = np.stack([frame((RED, 30, 10 + 3 * t)) for t in range(3)])
    given_labels = np.where(square(30, 10), 70, 0).astype(np.int32)
    given_labels[:5, :5] = 9
    labels = FlowTracker().track([Clip(rgb, {0: given_labels})])[0]
    assert np.array_equal(labels[0][given_labels > 0], given_labels[given_labels > 0])
    assert (labels > 0).all()
    assert owner(labels[2][None][0], np.ones((SIDE, SIDE), bool)) in (9, 70)


def test_nothing_given_is_one_label_and_births():
    rgb = np.stack([frame() for _ in range(2)])
    labels = FlowTracker().track([Clip(rgb, {0: np.zeros((SIDE, SIDE), np.int32)})])[0]
    assert (labels > 0).all()


def test_clips_do_not_know_of_each_other():
    one = np.stack([frame((RED, 30, 10 + 4 * t)) for t in range(4)])
    two = np.stack([frame((BLUE, 50, 40 - 4 * t)) for t in range(3)])
    clips = [Clip(rgb, {0: ClassicalSegmenter().segment(rgb[:1])[0]}) for rgb in (one, two)]
    both = FlowTracker().track(clips)
    for clip, labels in zip(clips, both, strict=True):
        assert np.array_equal(FlowTracker().track([clip])[0], labels)


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 3), st.integers(0, 5))
def test_every_pixel_gets_a_label_even_in_noise(height: int, width: int, frames: int, seed: int):
    rng = np.random.default_rng(seed)
    rgb = rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8)
    segments = rng.integers(0, 4, (height, width)).astype(np.int32)
    labels = FlowTracker().track([Clip(rgb, {0: segments, frames - 1: segments})])[0]
    assert labels.shape == rgb.shape[:3]
    assert labels.min() > 0


def test_a_label_is_born_when_nothing_is_covered_and_nothing_is_large():
    rgb = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    segments = np.ones((48, 64), np.int32)
    tracker = FlowTracker(FlowSettings(min_birth=1.0, min_vote=1e6))
    labels = tracker.track([Clip(rgb, {0: segments})])[0]
    assert [np.unique(frame).size for frame in labels] == [1, 1, 1]
    assert labels.min() > 0


def test_dense_flow_measures_a_shift():
    gray = cv2.cvtColor(BACK[:SIDE], cv2.COLOR_RGB2GRAY)
    start, end = (np.ascontiguousarray(gray[:, x : x + SIDE]) for x in (6, 2))
    flow = dense_flow(start, end)
    assert np.abs(np.median(flow, (0, 1)) - (4, 0)).max() < 0.3


def test_what_was_hidden_has_no_sure_origin():
    before = np.stack([frame((RED, 30, 20)), frame((RED, 30, 27))])
    lab = [cv2.cvtColor(image, cv2.COLOR_RGB2LAB) for image in before]
    came = origins(lab[0], lab[1], colour_tolerance=25.0)
    revealed = square(30, 20) & ~square(30, 27)
    assert came.sure[revealed].mean() < 0.5
    assert came.sure[~square(30, 20) & ~square(30, 27)].mean() > 0.9
    centre = came.columns[36:48, 33:45] - np.arange(33, 45)
    assert abs(np.median(centre) + 7) <= 1


def test_what_the_frames_between_show_decides():
    """One square takes another's place: only the way there tells them apart."""
    way = [frame((RED, 30, 4 + 5 * t), (RED, 30, 44 + 5 * t)) for t in range(9)]
    rgb = np.stack([way[0], way[8]])
    segments = np.where(square(30, 4), 1, np.where(square(30, 44), 2, 3)).astype(np.int32)
    alone = FlowTracker().track([Clip(rgb, {0: segments})])[0]
    helped = FlowTracker().track([Clip(rgb, {0: segments}, (np.stack(way[1:8]),))])[0]
    assert (alone[1][square(30, 44)] == 2).mean() > 0.5
    assert (helped[1][square(30, 44)] == 1).mean() > 0.7


def test_origins_go_through_the_frames_between():
    frames = [cv2.cvtColor(frame(pan=4 * t), cv2.COLOR_RGB2LAB) for t in range(6)]
    came = origins(frames[0], frames[5], between=frames[1:5], colour_tolerance=25.0)
    inner = np.s_[20:70, 20:70]
    assert came.sure[inner].mean() > 0.9
    assert not came.sure[:, -16:].any()
    shift = came.columns[inner] - np.arange(20, 70)
    assert abs(np.median(shift) - 20) <= 1


def discover(frames: list[np.ndarray], **settings: float) -> np.ndarray:
    rgb = np.stack(frames)
    tracker = FlowTracker(FlowSettings(**settings))  # type: ignore[arg-type]
    at = list(tracker.starts(len(frames)))
    segments = dict(zip(at, ClassicalSegmenter().segment(rgb[at]), strict=True))
    return tracker.discover([Clip(rgb, segments)])[0]


def test_what_moves_is_discovered_as_one_thing():
    at = [(30, 10 + 5 * t) for t in range(8)]
    labels = discover([frame((RED, *place), (BLUE, 62, 60)) for place in at])
    assert labels.shape == (8, SIDE, SIDE)
    assert np.array_equal(np.unique(labels), np.arange(1, labels.max() + 1))
    for mask in ([square(*place) for place in at], [square(62, 60)] * 8):
        assert len({owner(labels[t], inside) for t, inside in enumerate(mask)}) == 1


def test_what_enters_or_leaves_is_discovered():
    """Neither the first nor the last frame shows both."""
    frames = [frame((RED, 10, 100 - 11 * t), (BLUE, 60, 40 - 9 * t)) for t in range(9)]
    labels = discover(frames)
    assert owner(labels[3], square(10, 67)) == owner(labels[8], square(10, 12))
    assert owner(labels[0], square(60, 40)) == owner(labels[4], square(60, 4))


@pytest.mark.parametrize("frames", [1, 2, 3, 4])
def test_images_and_still_clips_keep_an_object_and_its_ground_apart(frames: int):
    """No motion tells anything there, and what is unlike must not become one thing for that."""
    assert (discover([np.full((40, 60, 3), 90, np.uint8)] * frames) == 1).all()
    labels = discover([frame((RED, 30, 10))] * frames)
    (red,) = {owner(labels[t], square(30, 10)) for t in range(frames)}
    assert (labels[:, ~square(30, 10)] == red).mean() < 0.02


def test_an_image_is_left_as_it_was_segmented():
    """Its segments would be one thing by their odds: parts of one plain surface."""
    rgb = np.full((1, SIDE, SIDE, 3), 120, np.uint8)
    parts = np.where(square(0, 0), 2, 5).astype(np.int32)
    assert np.array_equal(FlowTracker().discover([Clip(rgb, {0: parts})])[0][0], parts)
    twice = FlowTracker().discover([Clip(rgb.repeat(2, 0), {0: parts, 1: parts})])[0]
    assert np.unique(twice).size == 1


@pytest.mark.parametrize("frames", [2, 6])
def test_what_nobody_segmented_is_one_thing_through_all_frames(frames: int):
    rgb = np.zeros((frames, 40, 60, 3), np.uint8)
    tracker = FlowTracker()
    nothing = {at: np.zeros((40, 60), np.int32) for at in tracker.starts(frames)}
    assert (tracker.discover([Clip(rgb, nothing)])[0] == 1).all()


def test_a_start_without_a_segmentation_is_told():
    rgb = np.zeros((5, 40, 60, 3), np.uint8)
    clip = Clip(rgb, {at: np.ones((40, 60), np.int32) for at in (0, 2)})
    with pytest.raises(ValueError, match="no segmentation of frame 4, where labels start"):
        FlowTracker().discover([clip])


def test_labels_from_a_frame_in_the_middle_do_not_share_births():
    """Red enters after the middle, blue has left before it: two numbers, above all given ones."""
    rgb = np.stack(
        [frame(*([(BLUE, 60, 10)] if t < 2 else [(RED, 20, 60)][: t > 3])) for t in range(6)]
    )
    segments = {t: np.ones((SIDE, SIDE), np.int32) for t in (0, 3, 5)}
    tracker = FlowTracker()
    path = list(tracker._views(Clip(rgb, segments), both_ways=True))
    labels = follow_both_ways(FlowSettings(), path, 3, segments)
    assert (labels[2:4] == 1).all()
    red, blue = owner(labels[5], square(20, 60)), owner(labels[0], square(60, 10))
    assert red != blue and min(red, blue) > 1


def test_memory_knows_the_nearest_example_and_forgets():
    memory = Memory(np.array([[0.0], [10.0], [4.0]]), np.array([0, 0, 2]), patience=2)
    seen = memory.distances(np.array([[9.0]]), 3)
    assert seen.tolist() == [[1.0, np.inf, 5.0]]
    memory.update(np.array([[20.0]]), np.array([0]), 2)
    assert memory.distances(np.array([[9.0]]), 3).tolist() == [[11.0, np.inf, 5.0]]
    memory.update(np.array([[20.0]]), np.array([0]), 3)
    assert memory.distances(np.array([[9.0]]), 3).tolist() == [[11.0, np.inf, np.inf]]


def test_settings_are_checked():
    with pytest.raises(ValueError, match=r"FlowSettings\.grow = -1.0 must be >= 0"):
        FlowSettings(grow=-1.0)
    with pytest.raises(ValueError, match=r"FlowSettings\.edge = 0.0 must be > 0"):
        FlowSettings(edge=0.0)
