"""A model that reads files gives what evaluation gives of their records."""

from __future__ import annotations

import dataclasses
import logging

import av
import cv2
import numpy as np
import pytest

from tokenization.engines.inline import InlineEngine
from tokenization.extract import extract
from tokenization.manifest import Entry, read_manifest
from tokenization.pipeline import build
from tokenization.video import VideoError, decode
from trajvit_jax.api import load
from trajvit_jax.data.source import open_records
from trajvit_jax.evals.retrieval import compare


def test_files_are_read_as_the_records_of_them_are(model, world, clips, cut, tmp_path):
    entries = read_manifest(world)
    extract(entries, tmp_path, cut, split="test", engine=InlineEngine())
    compared = compare(model.module, open_records(tmp_path, "test"), model.text, batch=2)
    found = model.similarity(clips, compared.texts, batch=2)
    np.testing.assert_allclose(found, compared.similarity, atol=1e-5)
    assert model.settings.frames == model.tokenization.pipeline.frames == 4


def test_one_gives_a_vector_and_several_a_matrix(model, clips):
    several = model.embed_video(clips, batch=2)
    assert several.shape == (5, 16) and several.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(several, axis=1), 1, atol=1e-6)
    one = model.embed_video(str(clips[3]))
    assert one.shape == (16,)
    np.testing.assert_allclose(one, several[3], atol=1e-6)
    assert np.abs(several[0] - several[1]).max() > 1e-3
    assert model.embed_video([]).shape == (0, 16)
    texts = model.embed_text(["a red star", "a small blue ring spins"])
    np.testing.assert_allclose(model.embed_text("a red star"), texts[0], atol=1e-6)
    assert model.similarity(clips[0], "a red star").shape == ()
    assert model.similarity(clips[:2], "a red star").shape == (2,)


def test_pixels_images_and_spans_are_videos(model, clips, tmp_path):
    whole = decode(clips[0], frames=8)
    np.testing.assert_allclose(model.embed_video(whole.rgb), model.embed_video(clips[0]), atol=1e-6)
    image = tmp_path / "frame.png"
    cv2.imwrite(str(image), cv2.cvtColor(whole.rgb[2], cv2.COLOR_RGB2BGR))
    # Files of one and of several frames in turn: each comes back in its own place.
    mixed = model.embed_video([image, clips[0], whole.rgb[2], clips[1]], batch=2)
    np.testing.assert_allclose(mixed[0], mixed[2], atol=1e-6)
    np.testing.assert_allclose(mixed[[1, 3]], model.embed_video(clips[:2]), atol=1e-6)
    half = Entry("half", clips[0], end=0.5)
    assert np.abs(model.embed_video(half) - mixed[1]).max() > 1e-3


def test_programs_are_compiled_once_a_shape(folder, clips):
    model = load(folder)
    for videos in (clips[0], clips[1], clips, clips[:3], clips[:1]):
        model.embed_video(videos, batch=2)
    assert model._programs._video._cache_size() == 2
    for texts in ("a", "b", ["a", "b"], ["a"]):
        model.embed_text(texts)
    assert model._programs._text._cache_size() == 2


def test_trajectories_are_those_of_the_tokenizer(model, clips, cut):
    found = model.tokenize(clips[0])
    frames = decode(clips[0], frames=4, between=1, max_side=64)
    assert found == build(cut.pipeline).tokenize(frames)
    sheet = model.picture(clips[0], columns=4, width=60)
    assert sheet.ndim == 3 and sheet.dtype == np.uint8 and sheet.std() > 10


def test_tokens_tell_which_trajectory_they_are_of(model, clips):
    made = model.encode(clips[0], attention=True)
    n = len(made.tokens)
    assert 0 < n <= model.settings.trajvit.max_trajectories and made.tokens.shape[1] == 32
    assert made.token_ids.shape == (n,) and (np.diff(made.token_ids) > 0).all()
    assert set(np.unique(made.labels)) <= set(range(n + 1))
    np.testing.assert_allclose(made.embedding, model.embed_video(clips[0]), atol=1e-5)
    assert made.attention.shape == (2, 2, n + 1, n + 1)
    np.testing.assert_allclose(made.attention.sum(-1), 1, atol=1e-5)
    assert model.encode(clips[0]).attention is None
    # A cell of a token lies on a pixel of its trajectory: at most one cell away.
    cells = made.labels.shape[1]
    side = made.trajectories.labels.shape[1] // cells
    for token, trajectory in enumerate(made.token_ids, start=1):
        t, y, x = (axis[0] for axis in np.nonzero(made.labels == token))
        block = made.trajectories.labels[t, y * side : (y + 1) * side, x * side : (x + 1) * side]
        assert (block == trajectory).any()


def test_smallest_trajectories_without_a_slot_are_told(write_weights, tmp_path, clips, caplog):
    from trajvit_jax.models.settings import ResNetSettings, TrajViTSettings

    few = TrajViTSettings(max_trajectories=1, resnet=ResNetSettings(8, (8, 16), (1, 1)))
    model = load(write_weights(tmp_path / "few", trajvit=few))
    with caplog.at_level(logging.WARNING):
        model.embed_video(clips[:2])
    assert "found no slot among" in caplog.text
    made = model.encode(clips[0])
    largest = np.bincount(made.trajectories.labels.reshape(-1))[1:].argmax() + 1
    assert made.token_ids.tolist() == [largest]


@pytest.mark.parametrize("name", ["vit3d", "tome", "vivit", "rlt"])
def test_a_model_of_patches_needs_no_trajectories(name, write_weights, tmp_path, clips):
    model = load(write_weights(tmp_path / name, name))
    still = decode(clips[0], frames=1).rgb[0]
    assert model.embed_video([clips[0], still]).shape == (2, 16)
    made = model.encode(clips[0])
    assert made.trajectories is None and made.labels.shape == (2, 2, 2)
    assert np.unique(made.labels).tolist() == list(range(1, len(made.tokens) + 1))
    with pytest.raises(ValueError, match="reads patches and has no trajectories"):
        model.tokenize(clips[0])


@pytest.mark.parametrize(
    ("name", "later"),
    [
        ("vit3d", [[5, 6], [7, 8]]),
        ("vivit", [[2, 2], [2, 2]]),
        ("rlt", [[1, 2], [3, 5]]),  # one of the tubelets has changed
    ],
)
def test_cells_name_the_token_that_they_feed(name, later, write_weights, tmp_path):
    video = np.full((4, 32, 32, 3), 90, np.uint8)
    video[2:, 22:30, 22:30] = (255, 0, 0)
    made = load(write_weights(tmp_path / name, name)).encode(video)
    first = [[1, 1], [1, 1]] if name == "vivit" else [[1, 2], [3, 4]]
    assert made.labels.tolist() == [first, later]
    assert len(made.tokens) == np.max(later)


def test_an_index_is_searched_saved_and_read(model, world, clips, tmp_path):
    index = model.index(world, batch=2)
    assert index.ids == tuple(entry.id for entry in read_manifest(world)) and not index.bad
    best = model.search("a large red star spins", index, k=2)
    scores = model.similarity(clips, "a large red star spins")
    assert [hit.path for hit in best] == [str(clips[i]) for i in np.argsort(-scores)[:2]]
    assert best[0].score == pytest.approx(scores.max(), abs=1e-6)
    assert index.nearest(model.embed_video(clips[2]))[0].id == index.ids[2]
    index.save(tmp_path / "index.npz")
    again = type(index).load(tmp_path / "index.npz")
    assert (again.ids, again.paths, again.checkpoint) == (
        index.ids,
        index.paths,
        model.checkpoint,
    )
    np.testing.assert_array_equal(again.embeddings, index.embeddings)
    with pytest.raises(ValueError, match="made by another model"):
        model.search("a", dataclasses.replace(index, checkpoint="0"))


def test_what_cannot_be_read_is_named(model, clips, tmp_path, caplog):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(clips[0].read_bytes()[:300])
    sound = tmp_path / "sound.wav"
    with av.open(str(sound), "w") as container:
        container.add_stream("pcm_s16le", rate=8000)
    for path, reason in (
        (broken, "truncated"),
        (tmp_path / "none.mp4", "does not exist; correct the path"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(VideoError, match=reason) as error:
            model.embed_video([clips[0], path])
        assert str(path) in str(error.value)
    index = model.index([broken, clips[0], tmp_path / "none.mp4"])
    assert index.paths == (str(clips[0]),)
    assert [bad.path for bad in index.bad] == [str(broken), str(tmp_path / "none.mp4")]
    assert "left out" in caplog.text
    with pytest.raises(ValueError, match="none of 1 videos can be read, the first because it"):
        model.index([broken])
    with pytest.raises(ValueError, match="matches no video"):
        model.index(tmp_path / "*.mkv")


@pytest.mark.usefixtures("annotations_unchecked")
def test_wrong_arguments_are_told(model, clips, tmp_path):
    with pytest.raises(ValueError, match=r"uint8\[t, h, w, 3\].*got float32\[4, 8, 8, 3\]"):
        model.embed_video(np.zeros((4, 8, 8, 3), np.float32))
    with pytest.raises(ValueError, match=r"a video must be a path.*got int"):
        model.embed_video([3])
    with pytest.raises(ValueError, match=r"a video must be a path.*got int"):
        model.embed_video(3)
    with pytest.raises(ValueError, match="batch must be at least 1"):
        model.embed_video(clips, batch=0)
    with pytest.raises(ValueError, match="text 1 must say something, got ' '"):
        model.embed_text(["a", " "])
    index = model.index(clips[:1])
    with pytest.raises(ValueError, match="k must be at least 1"):
        model.search("a", index, k=0)
    with pytest.raises(ValueError, match=r"finite vector of 16 numbers, got \[7\]"):
        index.nearest(np.zeros(7, np.float32))
    with pytest.raises(ValueError, match=r"written as \.npz"):
        index.save(tmp_path / "index")
    (tmp_path / "bad.npz").write_bytes(b"PK no")
    with pytest.raises(ValueError, match=r"bad\.npz is no file of embeddings"):
        type(index).load(tmp_path / "bad.npz")
