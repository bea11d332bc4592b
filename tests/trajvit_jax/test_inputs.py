"""Bad input is refused before anything is compiled, naming shapes; in jit nothing leaks."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from trajvit_jax.models.inputs import check_text, check_video
from trajvit_jax.models.settings import (
    EncoderSettings,
    ModelSettings,
    ResamplerSettings,
    ResNetSettings,
    TextSettings,
    TrajViTSettings,
)
from trajvit_jax.models.tokens import Rows
from trajvit_jax.models.video_text import VideoTextModel

pytestmark = pytest.mark.usefixtures("annotations_unchecked")

VIDEO, LABELS = (2, 4, 32, 32, 3), (2, 4, 8, 8)


@pytest.fixture(scope="module")
def model(tiny, random_model):
    return random_model(tiny())


def inputs():
    rng = np.random.default_rng(0)
    video = rng.normal(size=VIDEO).astype(np.float32)
    return video, rng.integers(0, 7, LABELS).astype(np.int32)


SHAPES = {
    "mismatched frames": (np.zeros((2, 5, *VIDEO[2:])), np.zeros(LABELS, int), "frames of pixels"),
    "mismatched videos": (np.zeros(VIDEO), np.zeros((3, *LABELS[1:]), int), "frames of pixels"),
    "one video": (np.zeros(VIDEO[1:]), np.zeros(LABELS, int), "video must be"),
    "channels first": (np.zeros((2, 4, 3, 32, 32)), np.zeros(LABELS, int), "video must be"),
    "one label map": (np.zeros(VIDEO), np.zeros(LABELS[1:], int), "labels must be"),
    "no frames": (np.zeros((2, 0, *VIDEO[2:])), np.zeros((2, 0, 8, 8), int), "nothing to read"),
    "wide pixels": (np.zeros(VIDEO, np.int32), np.zeros(LABELS, int), "pixels must be uint8"),
    "soft labels": (np.zeros(VIDEO), np.zeros(LABELS), "labels must be whole numbers"),
}


@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "in jit"])
@pytest.mark.parametrize(("video", "labels", "message"), SHAPES.values(), ids=SHAPES.keys())
def test_shapes_and_dtypes_that_do_not_fit_are_named(model, video, labels, message, jitted):
    embed = VideoTextModel.embed_video
    video = video.astype(np.float32) if video.dtype == np.float64 else video
    labels = labels.astype(np.int32 if labels.dtype == np.int64 else np.float32)
    with pytest.raises(ValueError, match=message) as error:
        (nnx.jit(embed) if jitted else embed)(model, jnp.asarray(video), jnp.asarray(labels))
    for array in (video, labels):
        assert f"{array.dtype}{list(array.shape)}" in str(error.value)


@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "in jit"])
@pytest.mark.parametrize(
    "valid",
    [
        np.ones((1, 1), bool),
        np.ones((4, 2), bool),
        np.ones((2, 3), bool),
        np.ones(8, bool),
        np.ones((2, 4), np.float32),
    ],
    ids=["one for all", "transposed", "a frame less", "flat", "numbers"],
)
def test_frames_that_count_must_be_those_of_the_video(model, valid, jitted):
    def embed(model, *inputs):
        return model.embed_video(*inputs[:2], train=True, valid=inputs[2])

    def encode(model, *inputs):
        return model.encode_video(*inputs[:2], train=True, valid=inputs[2])

    for run in (embed, encode):
        with pytest.raises(ValueError, match=r"valid must be bool\[2, 4\]") as error:
            (nnx.jit(run) if jitted else run)(model, *map(jnp.asarray, inputs()), valid)
        assert f"got {valid.dtype}{list(valid.shape)}: video float32[2, 4, " in str(error.value)


@pytest.mark.parametrize("outside", [-1, 7, 70_000])
def test_labels_outside_the_slots_are_refused(model, outside):
    video, labels = inputs()
    labels[1, 2, 3, 4] = outside
    found = f"found {min(0, outside)}..{max(6, outside)}"
    with pytest.raises(ValueError, match=rf"within 0\.\.6 \(max_trajectories\), {found}") as error:
        model.embed_video(video, labels)
    assert "labels int32[2, 4, 8, 8]" in str(error.value)


def test_packed_labels_and_rows_are_checked_against_each_other(model):
    video, labels = inputs()
    rows = Rows(jnp.ones((1, 1, 6), int), jnp.ones((1, 1, 6), int), jnp.zeros((1, 2), int))
    with pytest.raises(ValueError, match=r"within 0\.\.5 \(the last slot of a row\), found 0\.\.6"):
        model.embed_video(video, labels, rows)
    with pytest.raises(ValueError, match=r"rows do not fit the batch: .* row \[1, 3\]"):
        model.embed_video(video, labels, rows.replace(row=jnp.zeros((1, 3), int)))
    with pytest.raises(
        ValueError, match=r"rows do not fit the batch: video \[1, 1, 6\], query \[1, 1, 5"
    ):
        model.embed_video(video, labels, rows.replace(query=jnp.ones((1, 1, 5), int)))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_refused(model, value):
    video, labels = inputs()
    video[1, 3, 0, 0, 2] = value
    with pytest.raises(ValueError, match=r"not finite in video 1 frame 3: video float32\[2, 4, 32"):
        model.embed_video(video, labels)


def test_inside_jit_a_label_outside_the_slots_changes_no_other_token(model):
    tokenize = nnx.jit(lambda *arguments: model.tokenizer(*arguments, train=False)[0])
    video, labels = inputs()
    labels[0, 1, 2:4] = 0
    before = tokenize(video, labels)
    for outside in (-1, 7, 8, 1000, 2**30 + 1, np.iinfo(np.int32).max):
        labels[0, 1, 2:4] = outside
        jax.tree.map(np.testing.assert_array_equal, tokenize(video, labels), before)


def test_slots_of_several_queries_do_not_wrap_labels_back_in(random_model, tiny):
    own = TrajViTSettings(
        max_trajectories=6,
        resnet=ResNetSettings(8, (8, 16), (1, 1)),
        resampler=ResamplerSettings(queries=4),
    )
    tokenizer = random_model(tiny("trajvit", trajvit=own)).tokenizer
    _, labels = inputs()
    for outside in (2**30 + 1, 2**30 + 2, np.iinfo(np.int32).max):
        wrong = np.where(labels == 3, outside, labels)
        segments = tokenizer.segments(jnp.asarray(wrong), None)
        assert not np.isin(np.asarray(segments.labels)[labels == 3], range(1, 25)).any()


def test_models_of_fixed_inputs_name_what_they_read(random_model, tiny):
    vit3d = random_model(tiny("vit3d"))
    video, labels = inputs()
    with pytest.raises(ValueError, match=r"vit3d reads multiples of 2 frames of 32x32 .*\[2, 3, "):
        vit3d.embed_video(video[:, :3], labels[:, :3])
    wide = np.zeros((2, 2, 32, 64, 3), np.float32)  # as many patches as the model has
    with pytest.raises(ValueError, match="vit3d reads multiples of 2 frames of 32x32 pixels"):
        vit3d.embed_video(wide, labels[:, :2])
    rows = Rows(jnp.ones((1, 2, 9), int), jnp.ones((1, 2, 9), int), jnp.arange(2)[None])
    with pytest.raises(ValueError, match="vit3d has one video a row"):
        vit3d.embed_video(video, labels, rows)


def packed_inputs():
    """Two videos in one row: slots 0..2 and 3..5."""
    video, labels = inputs()
    labels = np.minimum(labels, 2)
    labels[1] += 3 * (labels[1] > 0)
    videos, queries = jnp.asarray([[[1, 1, 1, 2, 2, 2]]]), jnp.asarray([[[0, 1, 1, 0, 1, 1]]])
    return video, labels, Rows(videos, queries, jnp.zeros((1, 2), int))


def test_rows_must_hold_each_video_once_and_where_they_say(model):
    video, labels, rows = packed_inputs()
    check_video(video, labels, model.settings, rows)
    with pytest.raises(ValueError, match=r"each of 2 videos needs one CLS slot, found .*1"):
        model.embed_video(video, labels, rows.replace(video=jnp.ones((1, 1, 6), int)))
    with pytest.raises(ValueError, match=r"rows.row of videos \[2\] is not the row"):
        model.embed_video(video, labels, rows.replace(row=jnp.asarray([[0, 5]])))
    with pytest.raises(ValueError, match=r"rows.video must be within 0\.\.2, found 2\.\.3"):
        model.embed_video(video, labels, rows.replace(video=rows.video + 1))


def slots(video, query, rows=1):
    """Rows of two videos, of which the second stands in the last row."""
    return Rows(
        jnp.asarray(video).reshape(1, rows, -1),
        jnp.asarray(query).reshape(1, rows, -1),
        jnp.asarray([[0, rows - 1]]),
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (slots([1, 1, 1, 2, 0, 2], [0, 1, 1, 0, 0, 1]), r"2 slots of video 1 .* found there: 3, 5"),
        (slots([1, 1, 1, 2, 2, 2], [0, 1, 1, 1, 0, 1]), "3 slots of video 1 .* must be its CLS"),
        (slots([1, 1, 0, 2, 2, 1], [0, 1, 0, 0, 1, 1], 2), "3 slots of video 0 .* there: 0, 1"),
    ],
    ids=["a gap", "a CLS in the middle", "over two rows"],
)
def test_slots_of_a_video_follow_one_another(model, rows, message):
    video, labels, _ = packed_inputs()
    with pytest.raises(ValueError, match=message):
        model.embed_video(video, np.zeros_like(labels), rows)


@pytest.mark.parametrize(
    ("label", "plan"),
    [(4, "video number 2, query 1"), (3, "video number 2, query 0"), (0, None), (6, "none")],
    ids=["another's", "another's CLS", "no token", "unplanned"],
)
def test_packed_labels_name_slots_of_their_own_video(model, label, plan):
    video, labels, rows = packed_inputs()
    wider = (jnp.pad(part, ((0, 0), (0, 0), (0, 2))) for part in (rows.video, rows.query))
    rows = Rows(*wider, rows.row)
    labels[0, 2, 3, 4] = label
    if plan is None:
        check_video(video, labels, model.settings, rows)
        return
    with pytest.raises(
        ValueError, match=rf"label {label} of video 0 .*planned for: {plan}"
    ) as error:
        model.embed_video(video, labels, rows)
    assert "number 1 of group 0, row 0" in str(error.value)
    assert str(error.value).endswith("renumber them to their own slots: 1, 2")


def test_later_tokens_of_a_trajectory_are_not_its_label(tiny):
    own = dataclasses.replace(tiny().trajvit, resampler=ResamplerSettings(queries=2))
    video, labels, rows = packed_inputs()
    rows = rows.replace(query=jnp.asarray([[[0, 1, 2, 0, 1, 2]]]))
    with pytest.raises(ValueError, match=r"label 2 of video 0 .* number 1, query 2.* slots: 1$"):
        check_video(video, labels, tiny(trajvit=own), rows)


def test_a_plan_of_more_trajectories_than_the_model_has_slots_is_refused(tiny):
    own = dataclasses.replace(tiny().trajvit, max_trajectories=1)
    video, labels, rows = packed_inputs()
    with pytest.raises(ValueError, match=r"video 0 .* with 2 trajectories: .*max_trajectories=1"):
        check_video(video, labels, tiny(trajvit=own), rows)


def test_values_that_a_traced_function_closes_over_are_checked(model):
    video, labels, rows = packed_inputs()
    video, labels = jnp.asarray(video), jnp.asarray(labels)

    @jax.jit
    def check(x):
        check_video(video, labels, model.settings, rows)
        check_text(jnp.zeros((2, 8), int), jnp.ones((2, 8), bool), model.settings.text)
        return x

    check(0)
    labels = labels.at[0, 0, 0, 0].set(5)
    with pytest.raises(ValueError, match="label 5 of video 0"):
        jax.jit(lambda x: check_video(video, labels, model.settings, rows) or x)(0)
    labels, video = labels.at[0, 0, 0, 0].set(1), video.at[1, 2, 0, 0, 0].set(np.nan)
    with pytest.raises(ValueError, match="not finite in video 1 frame 2"):
        jax.jit(lambda x: check_video(video, labels, model.settings, rows) or x)(0)


@pytest.mark.parametrize("jitted", [False, True], ids=["plain", "in jit"])
@pytest.mark.parametrize(
    ("ids", "mask", "message"),
    [
        ((2, 13), (2, 13), r"exceed the 12 positions of BERT: ids int32\[2, 13\]"),
        ((2, 8), (2, 7), r"ids and mask must both be .* ids int32\[2, 8\], mask bool\[2, 7\]"),
        ((8,), (8,), r"ids and mask must both be \[captions, tokens\]"),
    ],
)
def test_captions_whose_shapes_do_not_fit_are_named(model, ids, mask, message, jitted):
    embed = VideoTextModel.embed_text
    with pytest.raises(ValueError, match=message):
        (nnx.jit(embed) if jitted else embed)(model, jnp.zeros(ids, int), jnp.ones(mask, bool))


@pytest.mark.parametrize("outside", [-1, 64])
def test_ids_beyond_the_vocabulary_are_refused(model, outside):
    ids = jnp.zeros((2, 8), jnp.int32).at[1, 3].set(outside)
    found = f"found {min(0, outside)}..{max(0, outside)}"
    with pytest.raises(ValueError, match=rf"within 0\.\.63, {found}: ids int32\[2, 8\]"):
        model.embed_text(ids, jnp.ones((2, 8), bool))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSettings(impl="fats"), "model.impl .* did you mean 'fast'"),
        (lambda: ModelSettings(dtype="float16"), "model.dtype must be one of float32, bfloat16"),
        (lambda: TrajViTSettings(pooling="corner"), "trajvit.pooling .* did you mean 'corners'"),
        (lambda: TextSettings(length=600), "length 600 exceeds the 512 rows"),
        (lambda: TrajViTSettings(feature_width=-5), r"TrajViTSettings\.feature_width .* got -5"),
        (lambda: TrajViTSettings(position_depth=-1), r"position_depth must be .* >= 0, got -1"),
        (lambda: EncoderSettings(head_width=-3), r"EncoderSettings\.head_width .* got -3"),
        (lambda: EncoderSettings(head_width=True), "head_width must be a whole number .* True"),
        (lambda: ResNetSettings(8, (8, 16), (1,)), r"widths=\(8, 16\) and resnet\.depths=\(1,\)"),
        (lambda: ResNetSettings(8, (8, 0), (1, 1)), r"resnet\.widths must be .* got \(8, 0\)"),
        (lambda: ResNetSettings(8, (8,), (-1,)), r"resnet\.depths must be .* got \(-1,\)"),
        (lambda: ResNetSettings(8, (), ()), r"resnet\.widths must be .* got \(\)"),
        (lambda: ResNetSettings(0), r"ResNetSettings\.stem must be .* got 0"),
        (lambda: ResNetSettings(8, (6,), (1,), "bottleneck"), r"widths=\(6,\): .* multiples of 4"),
    ],
)
def test_settings_that_name_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
