"""The invariances that every video model owes to the token contract, and its sizes."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from trajvit_jax.models.resnet import ResNet
from trajvit_jax.models.settings import ModelSettings, ResNetSettings
from trajvit_jax.models.tokens import cls_states
from trajvit_jax.models.video_text import VideoTextModel, unit_length
from trajvit_jax.models.video_tokens.vit3d import tubelet_labels

VIDEOS, FRAMES, SIZE, GRID, SLOTS = 3, 4, 32, 8, 7


@nnx.jit
def run(model, video, labels):
    states, tokens, parts = model.encode_video(video, labels)
    embedding = unit_length(model.project_video(cls_states(states, tokens, VIDEOS)))
    return {"embedding": embedding, "values": tokens.values, "video": tokens.video, **parts}


@pytest.fixture(scope="module")
def trajvit(tiny, random_model):
    return random_model(tiny("trajvit"))


@pytest.fixture(scope="module")
def encode(trajvit):
    return lambda *inputs: run(trajvit, *inputs)


@pytest.fixture(scope="module")
def vit3d(tiny, random_model):
    return random_model(tiny("vit3d"))


def clips(seed=0):
    """Pixels, and labels whose trajectory 5 is nowhere and 1 lives in frames 0 and 1 only."""
    rng = np.random.default_rng(seed)
    video = rng.integers(0, 256, (VIDEOS, FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    labels = rng.choice([0, 2, 3, 4], (VIDEOS, FRAMES, GRID, GRID)).astype(np.int32)
    labels[:, :2, :3] = 1
    return jnp.asarray(video), jnp.asarray(labels)


@settings(max_examples=5, deadline=None)
@given(st.permutations(range(1, SLOTS)), st.integers(0, 2**32 - 1))
def test_permuted_trajectories_are_permuted_tokens_of_the_same_video(encode, order, seed):
    video, labels = clips(seed)
    order = np.array([0, *order])  # label i becomes order[i]
    before, after = encode(video, labels), encode(video, jnp.asarray(order)[labels])
    for name in ("pooled", "coordinates", "appearance", "position", "values"):
        np.testing.assert_allclose(
            after[name][:, order[1:]], before[name][:, 1:], atol=1e-5, err_msg=name
        )
    np.testing.assert_array_equal(after["present"][:, order[1:]], before["present"][:, 1:])
    np.testing.assert_allclose(after["embedding"], before["embedding"], atol=1e-5)


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), slots=st.sampled_from([SLOTS, 70]))
def test_slots_that_are_not_used_change_nothing(tiny, random_model, encode, seed, slots):
    """One more, and so many more that the features are pooled in the other order."""
    video, labels = clips(seed)
    own = dataclasses.replace(tiny().trajvit, max_trajectories=slots)
    many, few = run(random_model(tiny(trajvit=own)), video, labels), encode(video, labels)
    np.testing.assert_allclose(many["embedding"], few["embedding"], atol=1e-5)
    np.testing.assert_allclose(many["values"][:, 1:SLOTS], few["values"][:, 1:], atol=1e-5)
    assert not np.asarray(many["video"][:, SLOTS:]).any()


def test_other_videos_of_the_batch_change_nothing(trajvit, vit3d):
    video, labels = clips()
    other_video, other_labels = clips(seed=9)
    for model in (trajvit, vit3d):
        alone = run(model, video, labels)["embedding"][0]
        crowd = run(
            model, other_video.at[0].set(video[0]), (other_labels + 2).at[0].set(labels[0])
        )["embedding"]
        np.testing.assert_array_equal(crowd[0], alone)
        assert not np.allclose(crowd[1], run(model, video, labels)["embedding"][1], atol=1e-3)


def test_a_frame_without_the_trajectory_does_not_matter_to_it(trajvit):
    video, labels = clips()
    before = run(trajvit, video, labels)
    after = run(trajvit, video.at[:, 3].set(255 - video[:, 3]), labels)
    np.testing.assert_array_equal(after["values"][:, 1], before["values"][:, 1])
    assert not np.allclose(after["values"][:, 2], before["values"][:, 2], atol=1e-4)
    assert not before["present"][:, 1, 2:].any() and before["present"][:, 1, :2].all()
    assert not before["present"][:, [0, 5, 6]].any()


def test_a_video_without_trajectories_is_finite_and_empty(trajvit):
    video, labels = clips()
    out = run(trajvit, video, jnp.zeros_like(labels))
    np.testing.assert_array_equal(out["video"][:, 1:], 0)
    assert np.isfinite(out["embedding"]).all()


def count(module) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(module, nnx.Param)))


def test_parameters_at_the_size_of_the_paper():
    model = nnx.eval_shape(lambda: VideoTextModel(ModelSettings(), rngs=nnx.Rngs(0)))
    appearance, position = model.tokenizer.appearance, model.tokenizer.position
    assert count(appearance.backbone) == 11_176_512
    assert count(model.encoder.layers) == 302_309_376
    # Four bias-free projections, two layer norms and one at the end, a query.
    assert count(appearance.summary) == 4 * 1024**2 + 3 * 2 * 1024 + 1024
    assert count(position.summary) == count(appearance.summary)
    assert count(position.linear) == 64 * 1024 + 1024
    assert count(appearance.project) + count(appearance.norm) == 989_184
    # BERT-base without its pooler.
    assert count(model.text) == 109_482_240 - (768 * 768 + 768)


def test_tubelets_come_in_the_order_of_their_labels(tiny, random_model):
    model = random_model(tiny("vit3d"))
    tubelet, patch = model.settings.vit3d.tubelet, model.settings.vit3d.patch
    inputs = 3 * tubelet * patch**2
    kernel = np.zeros((inputs, 32), np.float32)
    kernel[np.arange(inputs), np.arange(inputs) % 3] = 3 / inputs  # mean of each channel
    embed = model.tokenizer.embed
    embed.kernel[...], embed.bias[...] = jnp.asarray(kernel), jnp.zeros(32)
    video = np.random.default_rng(0).normal(size=(1, FRAMES, SIZE, SIZE, 3)).astype(np.float32)
    unused = jnp.zeros((1, FRAMES, GRID, GRID), jnp.int32)
    _, parts = nnx.jit(lambda m, v: m.tokenizer(v, unused, train=False))(model, jnp.asarray(video))
    labels = tubelet_labels(FRAMES, SIZE, SIZE, tubelet=tubelet, patch=patch)
    assert set(np.unique(labels)) == set(range(1, model.tokenizer.count + 1))
    for channel in range(3):
        sums = np.bincount(labels.ravel(), video[0, ..., channel].ravel())[1:]
        means = sums / np.bincount(labels.ravel())[1:]
        np.testing.assert_allclose(parts["patches"][0, :, channel], means, atol=1e-5)


def test_padding_never_changes_a_caption(trajvit):
    embed = nnx.jit(lambda model, ids, mask: model.embed_text(ids, mask))
    ids = jnp.asarray([[2, 9, 8, 3, 0, 0, 0, 0], [2, 5, 6, 7, 8, 9, 10, 3]])
    mask = jnp.asarray(np.arange(8) < np.array([[4], [8]]))
    before = embed(trajvit, ids, mask)
    after = embed(trajvit, ids.at[0, 4:].set(33), mask)
    np.testing.assert_array_equal(after, before)
    alone = embed(trajvit, ids[:1, :4], mask[:1, :4])
    np.testing.assert_allclose(alone[0], before[0], atol=1e-5)
    assert not np.allclose(embed(trajvit, ids.at[0, 2].set(33), mask)[0], before[0], atol=1e-3)


def test_unknown_models_are_refused_with_the_nearest_name(tiny):
    with pytest.raises(ValueError, match="did you mean 'vit3d'"):
        VideoTextModel(tiny("vit3"), rngs=nnx.Rngs(0))


def test_tubelets_that_do_not_fit_are_refused(tiny):
    with pytest.raises(ValueError, match="5 frames of 32 px"):
        VideoTextModel(tiny("vit3d", frames=5), rngs=nnx.Rngs(0))


def test_a_vector_of_zeros_has_a_unit_vector_s_gradient_without_nan():
    gradient = jax.grad(lambda x: unit_length(x).sum())(jnp.zeros((2, 3)))
    assert np.isfinite(gradient).all()
    x = jnp.asarray([[3.0, 4.0]])
    np.testing.assert_allclose(unit_length(x), [[0.6, 0.8]], rtol=1e-6)


def test_the_form_for_cpu_gives_the_same_numbers(trajvit, vit3d):
    video, labels = clips()
    ids, mask = jnp.asarray([[2, 9, 8, 3]]), jnp.ones((1, 4), bool)
    for model in (trajvit, vit3d):
        embed = nnx.jit(lambda m, *inputs: (m.embed_video(*inputs[:2]), m.embed_text(*inputs[2:])))
        inputs = (video, labels, ids, mask)
        # Twice is once.
        separate, stacked = embed(model.for_cpu().for_cpu(), *inputs), embed(model, *inputs)
        for ours, theirs in zip(separate, stacked, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int8, jnp.uint16])
def test_labels_of_any_whole_dtype_name_the_same_trajectories(tiny, dtype):
    own = dataclasses.replace(tiny().trajvit, max_trajectories=300)
    settings = tiny(trajvit=own)
    tokenizer = nnx.eval_shape(lambda: VideoTextModel(settings, rngs=nnx.Rngs(0))).tokenizer
    _, labels = clips()
    segments = tokenizer.segments(labels.astype(dtype), None)
    np.testing.assert_array_equal(segments.labels, labels)


def test_gradients_in_bfloat16_are_near_those_in_float32(tiny, random_model):
    video, labels = clips()
    probe = np.random.default_rng(1).normal(size=(VIDEOS, 16)).astype(np.float32)

    @nnx.jit
    def loss_and_gradients(model):
        def loss(model):
            return (model.embed_video(video, labels, train=True) * probe).sum()

        return nnx.value_and_grad(loss)(model)

    exact, slopes = loss_and_gradients(random_model(tiny()))
    narrow, gradients = loss_and_gradients(random_model(tiny(dtype="bfloat16")))
    assert abs(narrow - exact) < 0.05
    ours, theirs = (
        np.concatenate([np.asarray(x, np.float32).ravel() for x in jax.tree.leaves(tree)])
        for tree in (gradients, slopes)
    )
    assert np.isfinite(ours).all()
    assert np.linalg.norm(ours - theirs) < 0.1 * np.linalg.norm(theirs)


@nnx.jit
def train_step(model, video, labels, valid):
    return model.embed_video(video, labels, train=True, valid=valid)


@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sets(st.integers(0, VIDEOS - 1), min_size=1, max_size=VIDEOS - 1),
    st.integers(0, 255),
)
def test_padded_frames_change_neither_other_embeddings_nor_statistics(
    tiny, random_model, seed, padded, value
):
    video, labels = clips(seed)
    valid = np.ones((VIDEOS, FRAMES), bool)
    valid[list(padded)] = False
    found = []
    for pixels in (video, jnp.where(valid[..., None, None, None], video, value)):
        model = random_model(tiny("trajvit"))
        embedded = train_step(model, pixels, labels, jnp.asarray(valid))[valid[:, 0]]
        found.append((embedded, nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))))
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_a_rematerialized_backbone_is_the_same_in_value_gradient_and_statistics(
    randomized, assert_close
):
    images = jnp.asarray(np.random.default_rng(0).normal(size=(3, 32, 32, 3)), jnp.float32)

    @nnx.jit
    def run(module):
        def loss(module):
            stages = module(images, train=True)
            return sum(jnp.square(stage).sum() for stage in stages), stages

        gradients, stages = nnx.grad(loss, has_aux=True)(module)
        return gradients, stages, nnx.state(module, nnx.BatchStat)

    def made(remat):
        sizes = ResNetSettings(8, (8, 16), (1, 1), remat=remat)
        return randomized(lambda: ResNet(sizes, rngs=nnx.Rngs(0)))

    kept, again = (run(made(remat)) for remat in (False, True))
    assert_close(again, kept)
    before = nnx.state(made(False), nnx.BatchStat)
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), again[2], before)
    assert all(jax.tree.leaves(moved))
