"""Which tokens a box has: the 80% rule by hand, and maps whose cells lie where they should."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.data.evaluation import eval_videos
from trajvit_jax.evals.boxes import BoxedFrame
from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.evals.regions import RegionSettings, box_tokens, gather, way_of
from trajvit_jax.evals.roi_align import roi_align
from trajvit_jax.models.settings import RLTSettings, TokenLearnerSettings


def boxed(frame, corners):
    corners = np.array([corners], np.float32)
    return BoxedFrame("a", "a", 0.0, frame, corners, (frozenset({"x"}),))


def test_four_fifths_of_a_mask_by_hand():
    labels = np.zeros((10, 10), np.int32)
    labels[2:7, 2:6] = 1  # 20 cells: columns 2..5
    labels[8, 0:10] = 2
    left_of = lambda x: np.array([0.0, 0.0, x, 1.0])  # noqa: E731
    assert gather(labels, left_of(0.6), 0.8).tolist() == [1]  # all of 1, 6 of 10 of 2
    assert gather(labels, left_of(0.5), 0.8).tolist() == []  # 15 of 20
    assert gather(labels, left_of(0.8), 0.8).tolist() == [1, 2]  # 8 of 10
    assert gather(labels, left_of(0.5), 0.75).tolist() == [1]
    assert gather(np.zeros((3, 3), np.int32), left_of(1.0), 0.8).tolist() == []


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_gathering_is_the_slow_rule(seed):
    rng = np.random.default_rng(seed)
    h, w = rng.integers(1, 9, 2)
    labels = rng.integers(0, 5, (h, w)).astype(np.int32)
    x0, y0 = rng.uniform(0, 0.7, 2)
    box = np.array([x0, y0, *rng.uniform((x0, y0), 1)])
    expected = []
    for label in range(1, 5):
        cells = [(y, x) for y in range(h) for x in range(w) if labels[y, x] == label]
        own = [
            box[0] <= (x + 0.5) / w < box[2] and box[1] <= (y + 0.5) / h < box[3] for y, x in cells
        ]
        if cells and sum(own) >= 0.8 * len(cells):
            expected.append(label)
    assert gather(labels, box, 0.8).tolist() == expected


@pytest.fixture(scope="module")
def batch(toy_record):
    """Three videos, the last place of the batch empty."""

    def read(settings, group):
        records = [toy_record(i) for i in range(3)]
        [videos] = eval_videos(records, settings, 4, keep=lambda _: None, group=group)
        return videos

    return read


@pytest.mark.parametrize("group", [None, 2])
def test_trajectories_inside_a_box_give_their_states(tiny, random_model, batch, group):
    model = random_model(tiny())
    videos = batch(model.settings, group)
    whole, nothing = (0.0, 0.0, 1.0, 1.0), (0.9, 0.0, 1.0, 0.1)
    boxes = [[(boxed(1, box), np.array(box)) for box in (whole, nothing)]] * 3 + [[]]
    embedder = Embedder(model, batch=4)
    found = box_tokens(embedder, videos, boxes)
    assert [[len(tokens) for tokens in own] for own in found] == [[2, 0]] * 3 + [[]]
    # As the encoder gives them for one video alone.
    for number in range(3):
        own = batch(model.settings, None)
        states, _, _ = model.encode_video(
            jnp.asarray(own.video[number : number + 1]),
            jnp.asarray(own.labels[number : number + 1]),
        )
        expected = np.asarray(states[0, 1:3], np.float64)
        expected -= expected.mean(-1, keepdims=True)
        expected /= np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(found[number][0], expected, atol=2e-5)


def test_a_map_lies_as_the_frame_does(tiny, random_model, batch):
    """The box over the lower right quarter reads the tubelet that lies there."""
    model = random_model(tiny("vit3d"))
    videos = batch(model.settings, None)
    quarter = np.array([0.5, 0.5, 1.0, 1.0])
    boxes = [[(boxed(0, quarter), quarter)], [], [], []]
    [[tokens], *_] = box_tokens(Embedder(model, batch=4), videos, boxes, RegionSettings(size=1))
    states, _, _ = model.encode_video(jnp.asarray(videos.video), jnp.asarray(videos.labels))
    cells = np.asarray(states[0, 1:], np.float64).reshape(2, 2, 2, -1)  # time, row, column
    expected = roi_align(cells.mean(0), quarter, size=1).reshape(1, -1)
    # Points at 0.75 and 1.25 cells: an eighth of the neighbour on each axis.
    weigh = np.array([1 / 8, 7 / 8])
    by_hand = np.einsum("y,x,yxd->d", weigh, weigh, cells.mean(0))
    np.testing.assert_allclose(expected[0], by_hand, atol=1e-9)
    expected -= expected.mean(-1, keepdims=True)
    expected /= np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(tokens, expected, atol=2e-5)


@pytest.mark.parametrize("group", [1, 2])
def test_merged_tokens_go_back_to_all_their_patches(tiny, random_model, batch, group):
    """A clip that stands still: RLT keeps the first step's tokens, which both steps then have."""
    settings = tiny("rlt", rlt=RLTSettings(threshold=10.0, group=group))
    model = random_model(settings)
    videos = batch(model.settings, None)
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    boxes = [[(boxed(0, whole), whole)]] * 3 + [[]]
    found = box_tokens(Embedder(model, batch=4), videos, boxes, RegionSettings(size=2))
    states, tokens, named = model.encode_video(
        jnp.asarray(videos.video), jnp.asarray(videos.labels)
    )
    labels = np.asarray(named["labels"])
    for number in range(3):
        np.testing.assert_array_equal(labels[number, 0], labels[number, 1])
        row = np.asarray(states[number // group], np.float64)
        cells = row[labels[number, 0]]
        expected = roi_align(cells, whole, size=2).reshape(4, -1)
        expected -= expected.mean(-1, keepdims=True)
        expected /= np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(found[number][0], expected, atol=2e-5)


def test_which_way_a_tokenization_goes(tiny):
    fused = TokenLearnerSettings(fuse=True)
    assert way_of(tiny()) == "trajectories" and way_of(tiny("vivit")) == "factorized"
    assert {way_of(tiny(name)) for name in ("vit3d", "rlt", "tome")} == {"map"}
    assert way_of(tiny("token_learner", token_learner=fused)) == "map"
    assert way_of(tiny("token_learner")) == way_of(tiny("automerge")) == "weights"
