"""The labels of every model colour the explorer's page."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib

import numpy as np
import pytest
from PIL import Image

from tokenization.explore.items import Item
from tokenization.manifest import read_manifest
from tokenization.shards import write_records
from tokenization.world.dataset import write_split
from tokenization.world.scenes import WorldSettings
from trajvit_jax.convert.stored import write_folder
from trajvit_jax.demo import tokens
from trajvit_jax.demo.page import TITLES
from trajvit_jax.models.settings import (
    FED_TRAJVIT,
    AutoMergeSettings,
    TokenLearnerSettings,
    ToMeSettings,
    ViT3DSettings,
)

SIDE = 32


@pytest.fixture(scope="module")
def sizes(tiny):
    return lambda name: tiny(
        name,
        vit3d=ViT3DSettings(patch=8, tubelet=2),
        automerge=AutoMergeSettings(tokens=5, patch=8),
        tome=ToMeSettings(merged=5),
        token_learner=TokenLearnerSettings(tokens=3, bottleneck=8),
    )


@pytest.fixture(scope="module")
def clip(toy_record):
    record = toy_record(1)
    return Item(record.frames, record.trajectories, record.captions)


def test_trajectories_and_tubelets_are_shown_as_they_are(sizes, random_model, clip):
    own = tokens.tokens_of(random_model(sizes("trajvit")), clip)
    cells = clip.trajectories.resize(SIDE // 4, SIDE // 4).labels
    assert np.array_equal(own.trajectories.labels, cells.repeat(4, 1).repeat(4, 2))
    patches = tokens.tokens_of(random_model(sizes("vit3d")), clip).trajectories
    t, y, x = np.mgrid[:4, :SIDE, :SIDE]
    assert np.array_equal(patches.labels, t // 2 * 16 + y // 8 * 4 + x // 8 + 1)
    # ViViT's first encoder reads the same ones; what leaves its last is a step's summary.
    same = tokens.tokens_of(random_model(sizes("vivit")), clip).trajectories
    assert np.array_equal(same.labels, patches.labels)


@pytest.mark.parametrize(("name", "most"), [("tome", 32 - 10), ("rlt", 32)])
def test_merged_tokens_cover_every_pixel(name, most, sizes, random_model, clip):
    labels = tokens.tokens_of(random_model(sizes(name)), clip).trajectories.labels
    assert labels.shape == (4, SIDE, SIDE) and labels.min() == 1
    assert 1 < labels.max() <= most


@pytest.mark.parametrize("name", ["token_learner", "automerge"])
def test_soft_tokens_take_the_cells_that_they_have_most_of(name, sizes, random_model, clip):
    import jax.numpy as jnp

    model = random_model(sizes(name))
    labels = tokens.tokens_of(model, clip).trajectories.labels
    grid = clip.trajectories.resize(SIDE // 4, SIDE // 4).labels[None].astype(np.int32)
    _, _, named = tokens.encode_video(model, jnp.asarray(clip.frames[None]), jnp.asarray(grid))
    weights = np.asarray(named["weights"][0])
    most = weights.argmax(0)
    most = most.repeat(4 // most.shape[0], 0).repeat(8, 1).repeat(8, 2)
    # The page numbers those that are seen anew.
    pairs = set(zip(most.flat, labels.flat, strict=True))
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs})


def test_a_video_file_is_cut_as_table_5_asks(sizes, random_model, tmp_path):
    settings = WorldSettings(frames=8, max_objects=2, cut_probability=0.0)
    [entry] = read_manifest(write_split(tmp_path, "test", 1, settings, progress=False))
    alone, squares = (
        tokens.read_clip(entry.path, name, frames=4, split="train", video=None)
        for name in ("segmentation_only", "tracking_only")
    )
    # Segments of a frame are in no other; squares go on.
    seen = [set(frame.flat) - {0} for frame in alone.trajectories.labels]
    assert all(seen) and len(set.union(*seen)) == sum(map(len, seen))
    first, *_, last = squares.trajectories.labels
    assert len(set(first.flat) & set(last.flat)) > len(set(first.flat)) / 2
    # What the page shows is what they were cut into, at the model's size.
    model = random_model(sizes(FED_TRAJVIT["tracking_only"]))
    shown = tokens.tokens_of(model, squares).trajectories.labels
    assert shown.shape == (4, SIDE, SIDE) and len(np.unique(shown)) > 2


def test_the_command_writes_a_page_of_records(
    sizes, clip, toy_record, tmp_path, monkeypatch, capsys
):
    from flax import nnx

    from trajvit_jax.models.video_text import VideoTextModel

    def small(config, name, seed):
        return VideoTextModel(sizes(FED_TRAJVIT.get(name, name)), rngs=nnx.Rngs(seed))

    monkeypatch.setattr(tokens, "draw_model", small)
    write_records(tmp_path / "records", [toy_record(0), toy_record(1)])
    page = tmp_path / "tokens.html"
    arguments = [str(tmp_path / "records"), "--output", str(page), "--models", "trajvit,tome"]
    assert tokens.main([*arguments, "--video", "clip01"]) == 0
    said = capsys.readouterr().out
    assert "TrajViT: clip01: 2 tokens" in said and "ToMe: clip01: 22 tokens" in said
    found = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', page.read_text())
    videos = [json.loads(one) for one in found]
    assert [video["madeBy"] for video in videos] == ["TrajViT", "ToMe"]
    assert [len(video["colours"]) for video in videos] == [3, 23]
    assert all(zlib.decompress(base64.b64decode(video["labels"])) for video in videos)


@pytest.mark.parametrize("name", ["vit", "vit3d"])
def test_an_image_vit_of_weights_has_a_token_a_patch(name, image_vit, tmp_path, capsys):
    settings = dataclasses.replace(image_vit.settings, name=name)
    write_folder(tmp_path / "vit", dataclasses.replace(image_vit, settings=settings))
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    page = str(tmp_path / "tokens.html")
    arguments = ["--weights", str(tmp_path / "vit"), "--output", page]
    assert tokens.main([str(tmp_path / "image.png"), *arguments]) == 0
    patches = (settings.image_size // settings.vit3d.patch) ** 2
    assert f"{TITLES[name]}: image: {patches} tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.mp4"], "missing.mp4 does not exist"),
        ([".", "--output", "tokens.png"], "must end in .html"),
        ([".", "--workdir", "nowhere"], "nowhere does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tokens.main(arguments) == 2
    assert said in capsys.readouterr().err


def test_unknown_models_are_named(capsys):
    with pytest.raises(SystemExit):
        tokens.main([".", "--models", "tomee"])
    assert "did you mean 'tome'" in capsys.readouterr().err
