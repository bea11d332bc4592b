"""What every tokenization must hold: one token contract, and its own paper's properties."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trajvit_jax.convert.inflation import inflate, is_inflatable
from trajvit_jax.convert.pieces import fill, paths
from trajvit_jax.convert.stored import initialize_from, write_folder
from trajvit_jax.data.batch import Batch
from trajvit_jax.models.costs import tokens_of
from trajvit_jax.models.footprints import (
    at_pixels,
    dense_by_labels,
    dense_by_weights,
    footprint,
    labels_of,
)
from trajvit_jax.models.settings import (
    NAMES,
    AutoMergeSettings,
    ResamplerSettings,
    RLTSettings,
    TokenLearnerSettings,
    ToMeSettings,
    TrajViTSettings,
    ViT3DSettings,
    ViViTSettings,
)
from trajvit_jax.models.tokens import cls_states
from trajvit_jax.models.video_text import TOKENIZERS, VideoTextModel, plain_slots
from trajvit_jax.models.video_tokens.rlt import rlt_tokens
from trajvit_jax.models.video_tokens.tome import tokens_by_layer
from trajvit_jax.ops.resampler_attention import attention_of_queries
from trajvit_jax.ops.run_length import run_lengths, run_starts
from trajvit_jax.ops.token_merging import can_merge, match_tokens, merge_tokens
from trajvit_jax.step import dropped_tokens

PATCHES = [name for name in NAMES if name != "trajvit"]
VIDEOS, STEPS, SIDE = 2, 2, 4  # of the clips below, in tubelets
TUBELETS = STEPS * SIDE**2


@pytest.fixture(scope="module")
def sizes(tiny):
    def make(name, **changes):
        image = {"frames": 1, "vit3d": ViT3DSettings(patch=8, tubelet=1)} if name == "vit" else {}
        own = {
            "vit3d": ViT3DSettings(patch=8, tubelet=2),
            "automerge": AutoMergeSettings(tokens=5, patch=8),
            "tome": ToMeSettings(merged=5),
            "token_learner": TokenLearnerSettings(tokens=3, bottleneck=8),
        }
        return tiny(name, **(own | image | changes))

    return make


def clip(settings, seed=0):
    rng = np.random.default_rng(seed)
    side, grid = settings.image_size, settings.grid
    video = rng.integers(0, 255, (VIDEOS, settings.frames, side, side, 3), dtype=np.uint8)
    return jnp.asarray(video), jnp.zeros((VIDEOS, settings.frames, grid, grid), jnp.int32)


@nnx.jit
def encode(model, video, labels):
    states, tokens, named = model.encode_video(video, labels)
    return states, tokens, named, model.embed_video(video, labels)


@pytest.fixture(scope="module")
def encoded(sizes, random_model):
    """Each model's outputs for the same clip."""
    kept = {}

    def run(name):
        if name not in kept:
            settings = sizes(name)
            kept[name] = (settings, *encode(random_model(settings), *clip(settings)))
        return kept[name]

    return run


def test_names_have_tokenizers():
    assert tuple(TOKENIZERS) == NAMES


@pytest.mark.parametrize("name", PATCHES)
def test_one_contract(encoded, random_model, name):
    settings, states, tokens, named, embedding = encoded(name)
    assert states.shape == tokens.values.shape
    assert tokens.video.shape == tokens.query.shape == states.shape[:2]
    assert tokens_of(settings).last == states.shape[1]
    np.testing.assert_array_equal(
        (tokens.query == 0) & (tokens.video > 0),
        np.eye(1, states.shape[1], dtype=bool).repeat(VIDEOS, 0),
    )
    model = random_model(settings)
    cls = model.project_video(cls_states(states, tokens, VIDEOS))
    unit = cls / jnp.linalg.norm(cls, axis=-1, keepdims=True)
    np.testing.assert_allclose(embedding, unit, atol=1e-5)
    assert ("labels" in named) != ("weights" in named)


@pytest.mark.parametrize("name", PATCHES)
def test_cells_are_divided_among_tokens(encoded, name):
    settings, states, tokens, named, _ = encoded(name)
    if "labels" in named:
        labels = np.asarray(named["labels"])
        slots = plain_slots(settings) if name == "vivit" else states.shape[1]
        # Every cell feeds one token, never CLS or an empty slot, and every token has a cell.
        for video in range(VIDEOS):
            fed = np.unique(labels[video])
            if name == "vivit":
                used = np.arange(1, slots)
            else:
                used = np.flatnonzero(np.asarray(tokens.video)[video] > 0)[1:]
            np.testing.assert_array_equal(fed, used)
        height = settings.image_size
        pixels = at_pixels(named["labels"], settings.frames, height, height)
        assert pixels.shape == (VIDEOS, settings.frames, height, height)
        # ViViT's number the tokens of time steps, before which no CLS stands.
        slots_of_cells = states
        if "spatial" in named:
            slots_of_cells = jnp.pad(named["spatial"], ((0, 0), (1, 0), (0, 0)))
        dense = dense_by_labels(slots_of_cells, named["labels"])
        expected = np.stack([np.asarray(slots_of_cells)[i][labels[i]] for i in range(VIDEOS)])
        np.testing.assert_array_equal(dense, expected)
    else:
        weights = np.asarray(named["weights"])
        assert weights.shape[1] == states.shape[1] - 1
        assert weights.min() >= 0
        np.testing.assert_allclose(weights.sum((2, 3, 4)), 1, atol=1e-5)
        assert labels_of(named["weights"]).shape == weights[:, 0].shape
        dense = dense_by_weights(states, named["weights"])
        # A mean of tokens lies between them.
        low, high = states[:, 1:].min(1), states[:, 1:].max(1)
        assert (dense >= low[:, None, None, None] - 1e-4).all()
        assert (dense <= high[:, None, None, None] + 1e-4).all()


def test_cells_of_trajectories_are_where_their_slots_are_present(sizes, random_model):
    """TrajViT's labels are what it is given: no cell feeds more, or other, than they say."""
    settings = sizes("trajvit")
    video, labels = clip(settings)
    most = settings.trajvit.max_trajectories
    labels = np.random.default_rng(1).integers(0, most + 1, labels.shape, dtype=np.int32)
    labels[:, 1][labels[:, 1] == 2] = 0  # one that is gone for a frame
    labels[0][labels[0] == most] = 0  # and one that is in one video alone
    _, tokens, named, _ = encode(random_model(settings), video, jnp.asarray(labels))
    np.testing.assert_array_equal(footprint(named, jnp.asarray(labels)), labels)
    slots = np.arange(1, most + 1)
    fed = labels[:, None] == slots[:, None, None, None]  # [b, n, t, y, x]
    np.testing.assert_array_equal(np.asarray(named["present"])[:, 1:], fed.any((3, 4)))
    np.testing.assert_array_equal(np.asarray(tokens.video)[:, 1:] > 0, fed.any((2, 3, 4)))


def test_dense_maps_put_tokens_back_to_their_cells():
    states = jnp.asarray([[[9.0], [1.0], [2.0]]])
    labels = jnp.asarray([[[[1, 2], [2, 0]]]])
    np.testing.assert_array_equal(dense_by_labels(states, labels)[0, 0, ..., 0], [[1, 2], [2, 0]])
    np.testing.assert_array_equal(
        at_pixels(labels, 2, 4, 2)[0, 1], [[1, 2], [1, 2], [2, 0], [2, 0]]
    )
    weights = jnp.asarray([[[[[0.5, 0.5]]], [[[0.0, 0.5]]]]])
    np.testing.assert_allclose(dense_by_weights(states, weights)[0, 0, 0, :, 0], [1.0, 1.5])
    with pytest.raises(ValueError, match="no multiple of"):
        at_pixels(labels, 1, 3, 2)


def same_weights(settings, donor, random_model):
    """A model with the donor's arrays wherever it has arrays of that name."""
    model = random_model(settings)
    return fill(
        model,
        {
            **paths(model),
            **{name: value for name, value in paths(donor).items() if name in paths(model)},
        },
    )


def test_without_merging_tome_is_vit3d(sizes, random_model, encoded, assert_close):
    _, states, _, _, embedding = encoded("vit3d")
    settings = sizes("tome", tome=ToMeSettings(merged=0))
    model = same_weights(settings, random_model(sizes("vit3d")), random_model)
    own, _, named, own_embedding = encode(model, *clip(settings))
    assert_close(own, states)
    assert_close(own_embedding, embedding)
    np.testing.assert_array_equal(named["sizes"], 1)


def test_tome_s_sizes_count_patches(encoded):
    _, _, _, named, _ = encoded("tome")
    sizes, labels = np.asarray(named["sizes"]), np.asarray(named["labels"])
    np.testing.assert_array_equal(sizes.sum(1), TUBELETS + 1)
    for video in range(VIDEOS):
        counted = np.bincount(labels[video].ravel(), minlength=sizes.shape[1])
        np.testing.assert_array_equal(counted[1:], sizes[video, 1:])
        assert sizes[video, 0] == 1


_match = jax.jit(match_tokens, static_argnums=1, static_argnames="cls")
_merge = jax.jit(merge_tokens, static_argnums=3)


@given(st.sampled_from([2, 7]), st.integers(0, 3), st.booleans(), st.integers(0, 99))
@hypothesis_settings(deadline=None, max_examples=12)
def test_merging_keeps_sums_and_never_moves_cls(n, merged, cls, seed):
    merged = min(merged, can_merge(n, cls=cls))
    rng = np.random.default_rng(seed)
    x, metric = (jnp.asarray(rng.normal(size=(1, n, 3)).astype(np.float32)) for _ in range(2))
    size = jnp.asarray(rng.integers(1, 5, (1, n)).astype(np.float32))
    place = _match(metric, merged, cls=cls)
    means, sizes = _merge(x, size, place, merged)
    assert means.shape[1] == n - merged
    assert set(np.unique(place)) == set(range(n - merged))
    np.testing.assert_allclose(sizes.sum(), size.sum())
    np.testing.assert_allclose(
        (means * sizes[..., None]).sum(1), (x * size[..., None]).sum(1), atol=1e-4
    )
    if cls:
        assert int(place[0, 0]) == 0 and float(sizes[0, 0]) == float(size[0, 0])


def test_the_last_layers_merge_what_is_left():
    assert tokens_by_layer(1569, 12, ToMeSettings())[-1] == 789
    assert tokens_by_layer(1569, 24, ToMeSettings())[-1] == 38


@pytest.fixture(scope="module")
def vit3d(sizes, random_model):
    return random_model(sizes("vit3d"))


def rlt(sizes, vit3d, random_model, **own):
    settings = sizes("rlt", rlt=RLTSettings(**own))
    return same_weights(settings, vit3d, random_model)


def used_slots(tokens):
    return np.asarray((tokens.video > 0).sum(1))


def test_a_static_clip_is_one_step_of_run_length_tokens(sizes, vit3d, random_model):
    model = rlt(sizes, vit3d, random_model, threshold=0.0)
    video, labels = clip(model.settings)
    static = jnp.broadcast_to(video[:, :1], video.shape)
    _, tokens, named, _ = encode(model, static, labels)
    np.testing.assert_array_equal(used_slots(tokens), 1 + SIDE**2)
    np.testing.assert_array_equal(named["labels"][:, 0], named["labels"][:, 1])
    # No threshold leaves fewer.
    for threshold in (1e9, float("inf")):
        huge = rlt(sizes, vit3d, random_model, threshold=threshold)
        _, tokens, _, _ = encode(huge, video, labels)
        np.testing.assert_array_equal(used_slots(tokens), 1 + SIDE**2)
        np.testing.assert_array_equal(rlt_tokens(huge.pixels(video), huge.settings), SIDE**2)


def test_where_nothing_repeats_rlt_is_vit3d(sizes, vit3d, random_model, encoded, assert_close):
    _, states, _, _, embedding = encoded("vit3d")
    model = rlt(sizes, vit3d, random_model, threshold=0.0)
    own, tokens, named, own_embedding = encode(model, *clip(model.settings))
    assert named["kept"].all() and (tokens.video > 0).all()
    assert_close(own, states)
    assert_close(own_embedding, embedding)


def half_static(settings):
    """The first video repeats three quarters of its first step, the second half of it."""
    video, labels = clip(settings)
    half = settings.image_size // 2
    video = video.at[0, 2:, :, half:].set(video[0, 1, :, half:])
    video = video.at[0, 0].set(video[0, 1]).at[1, 0].set(video[1, 1])
    video = video.at[0, 2:, half:].set(video[0, 1, half:])
    return video.at[1, 2:, half:].set(video[1, 1, half:]), labels


def test_videos_that_share_a_row_have_the_same_embedding(sizes, vit3d, random_model, assert_close):
    video, labels = half_static(vit3d.settings)
    alone = encode(rlt(sizes, vit3d, random_model, threshold=0.0), video, labels)
    need = int(used_slots(alone[1]).sum())
    assert need == 2 + TUBELETS + 4 + 8
    together = encode(
        rlt(sizes, vit3d, random_model, threshold=0.0, group=2, slots=need), video, labels
    )
    assert together[0].shape[:2] == (1, need)
    np.testing.assert_array_equal(together[2]["dropped"], [0])
    assert_close(together[3], alone[3])
    # Labels name slots of the video that they are of.
    for number in range(VIDEOS):
        slots = np.unique(together[2]["labels"][number])
        np.testing.assert_array_equal(together[1].video[0, slots], number + 1)
        assert len(slots) == used_slots(alone[1])[number] - 1


def test_what_has_no_slot_is_what_changed_least(sizes, vit3d, random_model):
    video, labels = half_static(vit3d.settings)
    slots = 2 * (1 + SIDE**2) + 3
    model = rlt(sizes, vit3d, random_model, threshold=0.0, group=2, slots=slots)
    _, tokens, named, _ = encode(model, video, labels)
    assert used_slots(tokens).sum() == slots
    np.testing.assert_array_equal(named["dropped"], [12 - 3])
    # So says the measure of a step; of trajectories what no plan of rows had room for.
    words, numbers = np.zeros((VIDEOS, 2), np.int32), np.zeros((VIDEOS, 2), np.uint32)
    dropped, epoch = jnp.full(VIDEOS, 2, jnp.int32), np.zeros(VIDEOS, np.int32)
    batch = Batch(video, labels, words, words > 0, numbers, dropped, numbers, epoch)
    enough = dataclasses.replace(model.settings, rlt=RLTSettings(threshold=0.0, group=2))
    others = (enough, vit3d.settings, sizes("automerge"), sizes("trajvit"))
    told = [int(dropped_tokens(batch, own)) for own in (model.settings, *others)]
    assert told == [12 - 3, 0, 0, 0, 2 * VIDEOS]
    change, kept = np.asarray(named["changes"])[:, 1:], np.asarray(named["kept"])[:, 1:]
    assert change[kept].min() >= change[~kept].max()
    assert (np.asarray(named["labels"]) > 0).all()
    with pytest.raises(ValueError, match=r"each has 17 tokens at least, so set 34 or more"):
        VideoTextModel(sizes("rlt", rlt=RLTSettings(group=2, slots=33)), rngs=nnx.Rngs(0))


def test_a_reader_has_slots_for_all_run_length_tokens(sizes, vit3d, random_model, assert_close):
    video, labels = half_static(vit3d.settings)
    alone = encode(rlt(sizes, vit3d, random_model, threshold=0.0), video, labels)[3]
    bounded = rlt(sizes, vit3d, random_model, threshold=0.0, group=2, slots=2 * (1 + SIDE**2) + 3)
    assert np.abs(encode(bounded, video, labels)[3] - alone).max() > 1e-3
    assert_close(encode(bounded.lossless(), video, labels)[3], alone)
    assert bounded.settings.rlt.group == bounded.tokenizer.settings.rlt.group == 2
    assert vit3d.lossless() is vit3d


def test_run_lengths_are_read(sizes, vit3d, random_model):
    video, labels = half_static(vit3d.settings)
    plain = encode(rlt(sizes, vit3d, random_model, threshold=0.0), video, labels)[3]
    model = rlt(sizes, vit3d, random_model, threshold=0.0, length_encoding=True)
    read = encode(model, video, labels)[3]
    assert not np.allclose(read, plain, atol=1e-3)
    model.tokenizer.length[...] = jnp.zeros_like(model.tokenizer.length[...])
    np.testing.assert_allclose(encode(model, video, labels)[3], plain, atol=1e-6)


@given(st.integers(0, 2**12 - 1))
@hypothesis_settings(deadline=None, max_examples=20)
def test_runs_cover_all_steps(bits):
    kept = np.array([bits >> i & 1 for i in range(12)], bool).reshape(1, 6, 1, 2)
    kept[:, 0] = True
    lengths, starts = (np.asarray(f(jnp.asarray(kept))) for f in (run_lengths, run_starts))
    np.testing.assert_array_equal((lengths * kept).sum(1), 6)
    for place in range(2):
        own = starts[0, :, 0, place]
        expected = np.maximum.accumulate(np.where(kept[0, :, 0, place], np.arange(6), 0))
        np.testing.assert_array_equal(own, expected)


def test_tokens_are_learned_within_their_time_step(encoded):
    _, _, _, named, _ = encoded("token_learner")
    weights = np.asarray(named["weights"])
    for token, step in enumerate(np.repeat(np.arange(STEPS), 3)):
        np.testing.assert_allclose(weights[:, token, step].sum((1, 2)), 1, atol=1e-5)


def test_fused_tokens_leave_all_patches(sizes, random_model):
    own = TokenLearnerSettings(tokens=3, bottleneck=8, fuse=True)
    settings = sizes("token_learner", token_learner=own)
    states, tokens, named, _ = encode(random_model(settings), *clip(settings))
    assert states.shape[1] == 1 + TUBELETS == tokens_of(settings).last
    assert named["labels"].shape == (VIDEOS, STEPS, SIDE, SIDE)
    assert (tokens.video > 0).all()
    for labels in named["labels"]:
        assert sorted(np.asarray(labels).flat) == list(range(1, TUBELETS + 1))


def test_automerge_has_trajvit_s_parameters_but_for_queries(sizes):
    def shapes(name):
        model = nnx.eval_shape(lambda: VideoTextModel(sizes(name), rngs=nnx.Rngs(0)))
        return {path: leaf.shape for path, leaf in paths(model).items()}

    ours, theirs = shapes("automerge"), shapes("trajvit")
    queries = {path for path in ours if path.endswith("summary.query")}
    assert len(queries) == 2
    assert all(ours[path][0] == 5 and theirs[path][0] == 1 for path in queries)
    assert {p: s for p, s in ours.items() if p not in queries} == {
        p: s for p, s in theirs.items() if p not in queries
    }


def test_automerge_s_weights_are_what_its_queries_read_of_patches(encoded, random_model):
    settings, _, _, named, _ = encoded("automerge")
    summary = random_model(settings).tokenizer.appearance.summary
    [layer] = summary.layers
    patches = np.asarray(named["pooled"])[:, 1:].swapaxes(1, 2)  # [b, t, cells, d]
    patches = jnp.asarray(patches.reshape(VIDEOS, -1, patches.shape[-1]))
    queries = layer.norm_query(summary.query[...][None])
    everywhere = jnp.ones(patches.shape[:2], bool)
    read = np.asarray(attention_of_queries(layer.weights(), queries, patches, everywhere))
    assert read.sum(-1).max() < 0.999  # the rest is read of the queries themselves
    expected = (read / read.sum(-1, keepdims=True)).reshape(named["weights"].shape)
    np.testing.assert_allclose(named["weights"], expected, rtol=1e-4, atol=1e-6)
    assert expected.std(-1).max() > 1e-3


def test_automerge_s_tokens_do_not_begin_alike(sizes):
    """They read the same patches; what tells them apart at the start is their queries."""
    model = VideoTextModel(sizes("automerge"), rngs=nnx.Rngs(0))
    tokens = np.asarray(encode(model, *clip(model.settings))[1].values)[0, 1:]
    unit = tokens / np.linalg.norm(tokens, axis=-1, keepdims=True)
    assert np.abs((unit @ unit.T)[np.triu_indices(len(unit), 1)]).mean() < 0.7


def test_longer_and_shorter_clips_than_the_position_table(sizes, random_model):
    for name in ("vit3d", "vivit"):
        model = random_model(sizes(name))
        long, short = clip(sizes(name, frames=8)), clip(sizes(name, frames=2))
        for video, labels in (long, short):
            states, _, named, _ = encode(model, video, labels)
            steps = video.shape[1] // 2
            assert named["labels"].shape[1] == steps
            assert states.shape[1] == 1 + (steps if name == "vivit" else steps * SIDE**2)
    table = random_model(sizes("vit3d")).tokenizer
    own = table.position[...]
    np.testing.assert_array_equal(table.positions(1), own[: SIDE**2])
    np.testing.assert_array_equal(table.positions(STEPS), own)
    # Twice as many steps lie a quarter of a step beside the old ones.
    stretched = np.asarray(table.positions(4)).reshape(4, -1)
    first, second = np.asarray(own).reshape(2, -1)
    np.testing.assert_allclose(stretched[1], 0.75 * first + 0.25 * second, atol=1e-6)


def test_time_steps_of_vivit_meet_only_in_its_second_part(sizes, random_model):
    model = random_model(sizes("vivit"))
    video, labels = clip(model.settings)
    _, _, before, embedding = encode(model, video, labels)
    _, _, after, other = encode(model, video.at[:, 2:].set(0), labels)
    first = slice(0, SIDE**2)
    np.testing.assert_allclose(after["spatial"][:, first], before["spatial"][:, first], atol=1e-5)
    assert not np.allclose(other, embedding, atol=1e-3)


def test_images_start_videos(sizes, random_model):
    image, video = random_model(sizes("vit")), random_model(sizes("vit3d"))
    assert is_inflatable(image.settings, video.settings)
    assert not is_inflatable(video.settings, video.settings)
    arrays = {name: np.asarray(value) for name, value in paths(image).items()}
    inflated, settings = inflate(arrays, image.settings, video.settings)
    assert settings == video.settings
    started = fill(video, inflated)
    pixels, labels = clip(video.settings)
    static = jnp.broadcast_to(pixels[:, :1], pixels.shape)
    _, _, named, _ = encode(started, static, labels)
    _, _, expected, _ = encode(image, pixels[:, :1], labels[:, :1])
    for step in range(STEPS):
        own = named["patches"].reshape(VIDEOS, STEPS, SIDE**2, -1)[:, step]
        np.testing.assert_allclose(own, expected["patches"], atol=1e-5)
    # Each time step has the positions of the image, in their order.
    positions = inflated["tokenizer.position"].reshape(STEPS, SIDE**2, -1)
    for own in positions:
        np.testing.assert_array_equal(own, arrays["tokenizer.position"])


def test_a_folder_of_an_image_vit_starts_a_model_of_videos(image_vit, random_model, tiny, tmp_path):
    write_folder(tmp_path / "vit", image_vit)
    image = image_vit.settings
    patches = dataclasses.replace(image.vit3d, tubelet=2)
    for name in ("vit3d", "tome"):
        settings = dataclasses.replace(
            tiny(name), image_size=image.image_size, encoder=image.encoder, vit3d=patches
        )
        own = paths(initialize_from(random_model(settings), tmp_path / "vit"))
        kernel = np.asarray(own["tokenizer.embed.kernel"]).reshape(2, -1, image.encoder.width)
        np.testing.assert_array_equal(kernel[0], 0)
        np.testing.assert_array_equal(kernel[1], image_vit.arrays["tokenizer.embed.kernel"])
        layers = "encoder.layers.mlp_in.kernel"
        np.testing.assert_array_equal(own[layers], image_vit.arrays[layers])


@pytest.mark.parametrize("name", ["tome", "token_learner"])
def test_remat_and_separate_layers_change_nothing(sizes, random_model, assert_close, name):
    settings = sizes(name)
    plain = random_model(settings)
    encoder = dataclasses.replace(settings.encoder, remat="layers")
    again = random_model(dataclasses.replace(settings, encoder=encoder))

    @nnx.jit
    def gradient(model, video, labels):
        return nnx.grad(lambda model: model.embed_video(video, labels)[:, 0].sum())(model)

    video, labels = clip(settings)
    found, expected = (nnx.to_pure_dict(gradient(m, video, labels)) for m in (again, plain))
    assert_close(found, expected)
    assert any(np.abs(leaf).max() > 1e-3 for leaf in jax.tree.leaves(expected["encoder"]))
    assert_close(encode(plain.for_cpu(), video, labels)[3], encode(plain, video, labels)[3])


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("vit", {"frames": 2}, "vit reads images"),
        ("token_learner", {"token_learner": TokenLearnerSettings(place=0.1)}, "not between two"),
        ("vivit", {"vivit": ViViTSettings(temporal_depth=2)}, "leaves none for space"),
        ("automerge", {"automerge": AutoMergeSettings(patch=12)}, "does not divide 32 px"),
    ],
)
def test_settings_of_no_model_are_refused(sizes, name, changes, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: VideoTextModel(sizes(name, **changes), rngs=nnx.Rngs(0)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RLTSettings(slots=1.5), "RLTSettings.slots must be a whole number"),
        (lambda: RLTSettings(threshold=float("nan")), "rlt.threshold must be at least 0, got nan"),
        (lambda: ToMeSettings(merged=6.5), "ToMeSettings.merged must be a whole number"),
        (lambda: ResamplerSettings(query_std=0.0), "query_std must be above 0"),
        (lambda: TrajViTSettings(position="frames"), "trajvit.position must be one of"),
        (
            lambda: TrajViTSettings(position="boxes_and_frames", position_features="released"),
            "has no trajvit.position_features='released'",
        ),
    ],
)
@pytest.mark.usefixtures("annotations_unchecked")
def test_settings_that_mean_nothing_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_merging_encoders_run_once_and_have_no_trace(sizes, random_model, monkeypatch):
    encoder = dataclasses.replace(sizes("tome").encoder, passes=2)
    model = random_model(sizes("tome", encoder=encoder))
    video, labels = clip(model.settings)
    with pytest.raises(ValueError, match=r"set encoder\.passes=1"):
        model.embed_video(video, labels)
    # Before anything is computed.
    monkeypatch.setattr(type(model.tokenizer), "__call__", None)
    with pytest.raises(ValueError, match="tome has no trace"):
        model.encode_video(video, labels, trace=True)
