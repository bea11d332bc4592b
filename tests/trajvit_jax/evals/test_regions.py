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
from trajvit_jax.models.settings import (
    AutoMergeSettings,
    RLTSettings,
    TokenLearnerSettings,
    ToMeSettings,
)


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


def layer_normalized(x):
    x = np.asarray(x, np.float64)
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6)


def whole_frame(model, videos, frame=0):
    """Tokens of a box around everything, one for each of the 2x2 cells, of all three videos."""
    whole = np.array([0.0, 0.0, 1.0, 1.0])
    boxes = [[(boxed(frame, whole), whole)]] * 3 + [[]]
    found = box_tokens(Embedder(model, batch=4), videos, boxes, RegionSettings(size=2))
    return [tokens for own in found for tokens in own]


def encoded(model, videos):
    states, _, named = model.encode_video(jnp.asarray(videos.video), jnp.asarray(videos.labels))
    return np.asarray(states, np.float64), {name: np.asarray(x) for name, x in named.items()}


# RoIAlign of a whole frame of 2x2 cells as 2x2: points at 0 and 0.25, and at 0.75 and 1.
_BLUR = np.array([[7 / 8, 1 / 8], [1 / 8, 7 / 8]])


def blurred(cells):
    """The four tokens of 2x2 cells, by hand."""
    return np.einsum("py,qx,yxd->pqd", _BLUR, _BLUR, cells).reshape(4, -1)


@pytest.mark.parametrize("frame", [0, 1, 2, 3])
def test_vivit_reads_the_annotated_step_and_its_state(tiny, random_model, batch, frame):
    model = random_model(tiny("vivit"))
    videos = batch(model.settings, None)
    states, named = encoded(model, videos)
    step = frame // 2  # a tubelet has two frames
    for number, tokens in enumerate(whole_frame(model, videos, frame)):
        # Slots lie step by step, row by row; state 0 is CLS.
        cells = named["spatial"][number, 4 * step : 4 * step + 4].astype(np.float64)
        spatial = blurred(cells.reshape(2, 2, -1))
        state = np.tile(states[number, 1 + step], (4, 1))
        expected = layer_normalized(np.concatenate([spatial, state], 1))
        assert tokens.shape == (4, 64)  # twice the width
        np.testing.assert_allclose(tokens, expected, atol=2e-5)


def test_tome_gives_a_merged_token_to_each_of_its_patches(tiny, random_model, batch):
    model = random_model(tiny("tome", tome=ToMeSettings(merged=2)))
    videos = batch(model.settings, None)
    states, named = encoded(model, videos)
    labels = named["labels"]
    assert all(len(np.unique(labels[number])) < labels[number].size for number in range(3))
    for number, tokens in enumerate(whole_frame(model, videos)):
        cells = np.zeros((2, 2, 32))
        for y in range(2):
            for x in range(2):
                for step in range(2):
                    cells[y, x] += states[number, labels[number, step, y, x]] / 2
        np.testing.assert_allclose(tokens, layer_normalized(blurred(cells)), atol=2e-5)


@pytest.mark.parametrize("name", ["token_learner", "automerge"])
def test_learned_tokens_go_back_by_their_share_of_each_cell(tiny, random_model, batch, name):
    model = random_model(tiny(name, automerge=AutoMergeSettings(tokens=5)))
    videos = batch(model.settings, None)
    states, named = encoded(model, videos)
    weights = named["weights"].astype(np.float64)  # of the tokens after CLS
    _, count, steps, rows, columns = weights.shape
    assert (rows, columns) == (2, 2)
    for number, tokens in enumerate(whole_frame(model, videos)):
        cells = np.zeros((2, 2, 32))
        for step, y, x in np.ndindex(steps, rows, columns):
            share = weights[number, :, step, y, x]
            for token in range(count):
                part = share[token] / share.sum()
                cells[y, x] += part * states[number, 1 + token] / steps
        np.testing.assert_allclose(tokens, layer_normalized(blurred(cells)), atol=2e-5)


def test_fused_tokens_lie_as_the_tubelets_do(tiny, random_model, batch):
    fused = TokenLearnerSettings(tokens=2, bottleneck=4, fuse=True)
    model = random_model(tiny("token_learner", token_learner=fused))
    videos = batch(model.settings, None)
    states, _ = encoded(model, videos)
    for number, tokens in enumerate(whole_frame(model, videos)):
        cells = states[number, 1:].reshape(2, 2, 2, -1).mean(0)  # time, row, column
        np.testing.assert_allclose(tokens, layer_normalized(blurred(cells)), atol=2e-5)


def test_which_way_a_tokenization_goes(tiny):
    fused = TokenLearnerSettings(fuse=True)
    assert way_of(tiny()) == "trajectories" and way_of(tiny("vivit")) == "factorized"
    assert {way_of(tiny(name)) for name in ("vit3d", "rlt", "tome")} == {"map"}
    assert way_of(tiny("token_learner", token_learner=fused)) == "map"
    assert way_of(tiny("token_learner")) == way_of(tiny("automerge")) == "weights"
