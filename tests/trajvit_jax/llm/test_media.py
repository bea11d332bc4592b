"""Images beside videos, and other numbers of frames than in training, by both kinds of eyes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from tokenization.video import decode
from trajvit_jax.llm import videollm
from trajvit_jax.llm.answering import AnswerSettings, Question
from trajvit_jax.llm.eyes import slots_of

SHORT = AnswerSettings(most_tokens=6)
# Tokens of an image, of a clip as in training (4 frames), and of 8 frames: of ViT3D CLS and four
# patches of each two frames, an image standing still for 4, as it did in training; of TrajViT as
# many as there are, CLS with them.
PATCHES = {"image": 1 + 8, "clip": 1 + 8, "longer": 1 + 16}


@pytest.fixture(scope="module", params=["trajvit", "vit3d"])
def model(request, videollm_folder):
    return videollm.load(videollm_folder(request.param), batch=3)


@pytest.fixture(scope="module")
def image(world_clips, tmp_path_factory):
    """The first frame of a clip."""
    path = tmp_path_factory.mktemp("images") / "frame.png"
    rgb = decode(world_clips[0], frames=4).rgb[0]
    assert cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return path


def tokens(model, path, frames=0):
    return model.tokens_of(path, frames)


def test_tokens_of_images_and_of_more_frames(model, world_clips, image):
    found = {
        "image": tokens(model, image),
        "clip": tokens(model, world_clips[0]),
        "longer": tokens(model, world_clips[0], 8),
    }
    video = model._saved.model.settings.video
    if video.name == "vit3d":
        assert found == PATCHES
    else:
        assert all(1 < count <= slots_of(video) for count in found.values())
        assert model._reader.read(image).labels.shape[0] == 1


def test_an_image_is_seen(model, image, world_clips, tmp_path):
    """Another image has other tokens; the same one in another format is the same."""
    states = [np.asarray(model._look(path, 0)[0].states) for path in (image, image)]
    np.testing.assert_array_equal(*states)
    other = tmp_path / "other.png"
    rgb = decode(world_clips[1], frames=4).rgb[0]
    assert cv2.imwrite(str(other), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    assert not np.allclose(np.asarray(model._look(other, 0)[0].states), states[0], atol=1e-3)
    bitmap = tmp_path / "same.bmp"
    assert cv2.imwrite(str(bitmap), cv2.imread(str(image)))
    np.testing.assert_array_equal(np.asarray(model._look(bitmap, 0)[0].states), states[0])


@pytest.mark.parametrize("frames", [0, pytest.param(8, marks=pytest.mark.slow)])
def test_clips_and_images_together_are_answered_as_alone(model, world_clips, image, frames):
    settings = AnswerSettings(most_tokens=6, frames=frames)
    questions = [
        Question("Are they alike?", (world_clips[0], image)),
        Question("What is it?", (image,)),
        Question("What is what?"),
        Question("What?", (image, world_clips[1], world_clips[2])),
    ]
    together = model.answer_all(questions, settings)
    assert together == [model.answer_all([one], settings)[0] for one in questions]
    assert len(set(together)) > 1


def test_more_frames_are_another_video(model, world_clips):
    four, eight = (np.asarray(model._look(world_clips[0], n)[0].states) for n in (0, 8))
    shared = min(four.shape[1], eight.shape[1])
    assert not np.allclose(four[:, :shared], eight[:, :shared], atol=1e-3)
