"""The procedural world: what its truth says must be what its pixels show."""

from __future__ import annotations

import colorsys
import dataclasses
import json
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tokenization.world import WorldSettings, load_truth, render, write_split
from tokenization.world.__main__ import main
from tokenization.world.captions import caption, content, split_of
from tokenization.world.dataset import clips
from tokenization.world.events import events
from tokenization.world.sampling import sample_scene
from tokenization.world.scenes import (
    COLOURS,
    Background,
    Camera,
    ObjectSpec,
    Scene,
    Shot,
    screen_path,
)
from trajvit_jax.config import load, to_settings

SMALL = WorldSettings(width=96, height=80, frames=10)
MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
SIDES = {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}


def decode(path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def read_manifest(path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def still(shape: str = "cross", **changes) -> ObjectSpec:
    values = {
        "id": 1,
        "colour": "red",
        "shape": shape,
        "size": "large",
        "texture": "checks",
        "seed": 0,
        "radius": 25.0,
        "verb": "rests",
        "direction": "",
        "start": (64.0, 64.0),
        "velocity": (0.0, 0.0),
        "angle": 0.0,
        "spin": 0.0,
    }
    return ObjectSpec(**(values | changes))


def one_shot(*objects: ObjectSpec, pan=(0.0, 0.0), zoom=1.0, frames=8, kind="noisy") -> Scene:
    camera = Camera((64.0, 64.0), pan, zoom, (frames - 1) / 2)
    ids = tuple(spec.id for spec in objects)
    return Scene((Shot(0, frames, Background(kind, 7), camera, objects, ids),))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    manifests = {
        split: write_split(folder, split, count, SMALL, seed=3, progress=False)
        for split, count in (("train", 30), ("test", 15))
    }
    return folder, manifests


@pytest.fixture(scope="module")
def rendered():
    """Clips with their rendered scenes, in memory."""
    chosen = list(clips("train", 40, SMALL, seed=5))
    return [(clip, render(clip.scene, SMALL)) for clip in chosen]


def test_same_seed_same_pixels():
    scene, again = (sample_scene(np.random.default_rng(9), SMALL) for _ in range(2))
    assert scene == again
    one, two = render(scene, SMALL), render(again, SMALL)
    assert np.array_equal(one.frames, two.frames)
    assert np.array_equal(one.labels, two.labels)
    assert not np.array_equal(
        one.frames, render(sample_scene(np.random.default_rng(10), SMALL), SMALL).frames
    )


def test_captions_of_the_splits_are_disjoint_and_unique():
    texts = {
        split: [clip.caption for clip in clips(split, count, WorldSettings(), seed=seed)]
        for split, count, seed in (("train", 400, 0), ("test", 150, 1))
    }
    assert len(set(texts["test"])) == 150
    assert len(set(texts["train"])) == 400
    assert not set(texts["train"]) & set(texts["test"])


def test_captions_are_short_and_regular():
    texts = [clip.caption for clip in clips("train", 400, WorldSettings())]
    words = [text.replace(",", "").split() for text in texts]
    assert all(8 <= len(sentence) <= 30 for sentence in words)
    assert all(text == text.lower() for text in texts)
    assert len({word for sentence in words for word in sentence}) < 150


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(deadline=None, max_examples=50)
def test_the_order_of_two_actors_does_not_change_the_split(seed):
    scene = sample_scene(np.random.default_rng(seed), WorldSettings(min_objects=2))
    swapped = Scene(
        tuple(
            shot if shot.relation else dataclasses.replace(shot, actors=shot.actors[::-1])
            for shot in scene.shots
        )
    )
    assert content(swapped) == content(scene)
    assert split_of(swapped) == split_of(scene)
    assert caption(scene) != caption(swapped) or scene == swapped


def test_manifest_and_truth_fit_the_video(written):
    _, manifests = written
    for manifest in manifests.values():
        for line in read_manifest(manifest)[:8]:
            truth = load_truth(manifest.parent / line["truth"])
            frames = decode(manifest.parent / line["path"])
            assert frames.shape == (SMALL.frames, SMALL.height, SMALL.width, 3)
            assert truth.labels.shape == frames.shape[:3]
            assert line["captions"] == [truth.caption]
            seen = set(np.unique(truth.labels)) - {0}
            assert seen == {entry.id for entry in truth.objects if entry.frames}


def test_labelled_pixels_have_the_named_colour(written):
    """In the decoded video, the hue inside each label is nearest to the colour's own."""
    _, manifests = written
    hues = {name: colorsys.rgb_to_hsv(*np.divide(rgb, 255))[0] for name, rgb in COLOURS.items()}
    checked = 0
    for line in read_manifest(manifests["train"]):
        truth = load_truth(manifests["train"].parent / line["truth"])
        frames = decode(manifests["train"].parent / line["path"])
        for entry in truth.objects:
            mask = truth.labels == entry.id
            if mask.sum() < 500:
                continue
            hue = colorsys.rgb_to_hsv(*(frames[mask].mean(0) / 255))[0]
            gaps = {name: abs((hue - value + 0.5) % 1 - 0.5) for name, value in hues.items()}
            assert min(gaps, key=gaps.get) == entry.colour, line["captions"]
            checked += 1
    assert checked > 20


def test_labels_are_exactly_the_drawn_pixels():
    """Without texture every pixel well inside a label has the object's very colour."""
    flat = WorldSettings(object_texture=0.0)
    for shape in ("circle", "square", "triangle", "star", "ring", "cross"):
        drawn = render(one_shot(still(shape, spin=7.0)), flat)
        for frame, labels in zip(drawn.frames, drawn.labels, strict=True):
            inner = cv2.erode((labels == 1).astype(np.uint8), np.ones((3, 3))) > 0
            outer = cv2.dilate((labels == 1).astype(np.uint8), np.ones((3, 3))) == 0
            assert inner.sum() > 100
            assert (frame[inner] == COLOURS["red"]).all()
            assert not (frame[outer] == COLOURS["red"]).all(-1).any()


def test_clockwise_is_clockwise():
    drawn = render(one_shot(still("star", spin=6.0)), WorldSettings())
    first, later = ((drawn.labels[t] == 1).astype(np.uint8) for t in (0, 3))
    overlap = {}
    for degrees in (18, -18):
        # OpenCV turns counterclockwise for positive angles.
        turn = cv2.getRotationMatrix2D((63.5, 63.5), -degrees, 1.0)
        turned = cv2.warpAffine(first, turn, (128, 128), flags=cv2.INTER_NEAREST)
        overlap[degrees] = (turned & later).sum() / (turned | later).sum()
    assert overlap[18] > 0.9 > 0.8 > overlap[-18]
    log = events(one_shot(still("star", spin=6.0)), drawn)
    assert [event.direction for event in log if event.what == "rotates"] == ["clockwise"]


def test_pan_and_zoom_move_the_background():
    settings = WorldSettings(background_texture=1.0)
    panned = render(one_shot(pan=(2.0, -1.0)), settings).frames
    grey = [cv2.cvtColor(panned[t], cv2.COLOR_RGB2GRAY).astype(np.float64) for t in (0, 3)]
    (x, y), _ = cv2.phaseCorrelate(*grey)
    assert (x, y) == pytest.approx((-6, 3), abs=0.3)
    log = events(one_shot(pan=(2.0, -1.0)), render(one_shot(pan=(2.0, -1.0)), settings))
    assert [event.direction for event in log if event.what == "pans"] == ["right"]

    grown = render(one_shot(still("square"), zoom=1.05), settings)
    area = grown.visible()[:, 1]
    assert area[-1] / area[0] == pytest.approx(1.05**14, rel=0.03)


def test_events_agree_with_the_motion_of_labels(rendered):
    """Direction words against the centroids of what is seen."""
    seen = {"moves": 0, "enters": 0, "leaves": 0}
    for clip, drawn in rendered:
        for event in events(clip.scene, drawn):
            if event.what not in seen:
                continue
            owned = drawn.labels[event.start : event.stop] == event.object
            frames = [np.argwhere(mask)[:, ::-1] for mask in owned if mask.sum() > 5]
            if len(frames) < 2:
                continue
            step = frames[-1].mean(0) - frames[0].mean(0)
            way = (MOVES | SIDES)[event.direction]
            along = float(step @ way) * (-1 if event.what == "enters" else 1)
            assert along > 0, (clip.caption, event)
            seen[event.what] += 1
    assert all(count >= 5 for count in seen.values()), seen


def test_captions_say_what_the_events_say(rendered):
    passed = 0
    for clip, drawn in rendered:
        log = events(clip.scene, drawn)
        for shot in clip.scene.shots:
            for spec in shot.acting():
                own = {(e.what, e.direction) for e in log if e.object == spec.id}
                if spec.verb == "spins":
                    assert "rotates" in {what for what, _ in own}
                elif spec.verb != "rests":
                    assert (spec.verb, spec.direction) in own, clip.caption
            if shot.relation:
                mover, partner = shot.actors
                crossing = [
                    e
                    for e in log
                    if e.what == "crosses" and e.object == mover and e.other == partner
                ]
                assert [e.direction for e in crossing] == [shot.relation]
                middle = drawn.labels[crossing[0].start : crossing[0].stop]
                assert middle.any()
                passed += 1
    assert passed >= 3


def test_movers_cross_a_quarter_of_the_frame_whatever_the_camera_does():
    shaky = dataclasses.replace(SMALL, camera_pan=0.02, camera_zoom=0.01)
    for clip in clips("train", 60, shaky):
        for shot in clip.scene.shots:
            for spec in shot.acting():
                if spec.verb != "moves":
                    continue
                centres, _ = screen_path(spec, shot)
                along = (centres[-1] - centres[0]) @ MOVES[spec.direction]
                assert along >= 0.25 * SMALL.side


def test_a_folder_may_be_older_than_a_setting(tmp_path):
    write_split(tmp_path, "train", 1, SMALL, progress=False)
    path = tmp_path / "settings.json"
    noted = json.loads(path.read_text())
    del noted["in_sight"]
    path.write_text(json.dumps(noted))
    write_split(tmp_path, "train", 1, SMALL, progress=False)
    with pytest.raises(ValueError, match="in_sight: False, now True"):
        write_split(tmp_path, "train", 1, dataclasses.replace(SMALL, in_sight=True))


def test_objects_that_stay_in_sight():
    stay = dataclasses.replace(SMALL, in_sight=True, moving_extras=0.5)
    sides = np.array([SMALL.width, SMALL.height])
    for clip in clips("train", 40, stay):
        for shot in clip.scene.shots:
            assert {spec.verb for spec in shot.objects} <= {"moves", "spins", "rests"}
            for spec in shot.objects:
                centres, radius = screen_path(spec, shot)
                if spec.verb == "moves":
                    assert (np.abs(centres - sides / 2) <= sides / 2 - radius[:, None] + 1).all()


def test_a_cut_replaces_everything():
    settings = dataclasses.replace(SMALL, cut_probability=1.0)
    for clip in clips("test", 5, settings):
        drawn = render(clip.scene, settings)
        (cut,) = clip.scene.cuts
        assert not (set(np.unique(drawn.labels[:cut])) & set(np.unique(drawn.labels[cut:]))) - {0}
        jump = np.abs(np.diff(drawn.frames.astype(int), axis=0)).mean((1, 2, 3))
        assert jump.argmax() == cut - 1
        assert [e.start for e in events(clip.scene, drawn) if e.what == "cut"] == [cut]
        assert ", then after a cut a " in clip.caption
    never = dataclasses.replace(SMALL, cut_probability=0.0)
    assert not any(clip.scene.cuts for clip in clips("test", 20, never))


def test_hidden_pixels_are_counted():
    back, front = still("square"), still("square", id=2, colour="blue", start=(74.0, 64.0))
    both = render(one_shot(back, front), WorldSettings())
    alone = render(one_shot(back), WorldSettings())
    assert np.array_equal(both.whole()[:, 1], alone.visible()[:, 1])
    assert (both.hidden[:, 1, 2] > 0).all()
    assert (both.visible()[:, 2] == alone.visible()[:, 1]).all()


def test_second_run_keeps_what_exists(written):
    folder, manifests = written
    manifest = manifests["test"]
    before = manifest.read_bytes()
    videos = sorted((folder / "test" / "videos").iterdir())
    stamps = [path.stat().st_mtime_ns for path in videos[1:]]
    content_of_first = videos[0].read_bytes()
    videos[0].unlink()
    write_split(folder, "test", 15, SMALL, seed=3, progress=False)
    assert manifest.read_bytes() == before
    assert [path.stat().st_mtime_ns for path in videos[1:]] == stamps
    assert videos[0].read_bytes() == content_of_first
    assert not list(folder.rglob("*.partial"))


def test_a_shorter_split_is_the_start_of_a_longer_one():
    short, long = (list(clips("test", count, SMALL)) for count in (5, 9))
    assert long[:5] == short


def test_other_settings_in_the_same_folder_are_refused(written):
    folder, _ = written
    with pytest.raises(ValueError, match=r"settings\.json.*crf: 20, now 30"):
        write_split(folder, "test", 1, dataclasses.replace(SMALL, crf=30), seed=3, progress=False)
    with pytest.raises(ValueError, match="seed: 3, now 4"):
        write_split(folder, "test", 1, SMALL, seed=4, progress=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [("width", 127), ("frames", 2), ("max_objects", 9), ("sizes", (0.1, 0.2, 0.4)), ("crf", 60)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"WorldSettings.{name}"):
        WorldSettings(**{name: value})


def test_too_many_clips_for_the_vocabulary_is_an_error(monkeypatch):
    monkeypatch.setattr("tokenization.world.dataset._DRAWS", 1)
    with pytest.raises(ValueError, match="ask for fewer clips"):
        list(clips("test", 100, SMALL))


def test_broken_truth_is_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"not an archive")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(ValueError, match=r"x\.npz"):
        load_truth(tmp_path / "x")
    with pytest.raises(FileNotFoundError):
        load_truth(tmp_path / "y")


def test_a_truth_that_was_cut_off_or_damaged_is_named(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, labels=np.random.default_rng(0).integers(0, 9, (4, 32, 32)))
    (tmp_path / "x.json").write_text("{}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for damaged in (whole[:middle], whole[:middle] + bytes(200) + whole[middle + 200 :]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"x\.npz and \.json are not a world's truth"):
            load_truth(path)


def test_an_interrupted_write_leaves_nothing_half_written(tmp_path, monkeypatch):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("av.VideoFrame.from_ndarray", interrupt)
    assert main([f"--output={tmp_path}", "--train=2", "--test=0"]) == 130
    assert not list(tmp_path.rglob("*.mp4"))
    assert not list(tmp_path.rglob("*.partial"))


def test_command_line(tmp_path, capsys):
    flags = ["--train=2", "--test=1", "--width=64", "--height=64", "--frames=8"]
    assert main([f"--output={tmp_path}", *flags]) == 0
    assert len(read_manifest(tmp_path / "train" / "manifest.jsonl")) == 2
    assert main([f"--output={tmp_path}", *flags, "--crf=40"]) == 2
    assert "crf: 20" in capsys.readouterr().err


def test_help_teaches():
    run = subprocess.run(
        [sys.executable, "-m", "tokenization.world", "--help"], capture_output=True, text=True
    )
    assert run.returncode == 0
    assert "examples:" in run.stdout
    for field in dataclasses.fields(WorldSettings):
        assert f"--{field.name.replace('_', '-')}" in run.stdout


def test_quality_config_is_a_valid_world():
    config = load("configs/tokenization/world_quality.py:clips=8")
    settings = to_settings(WorldSettings, config.world)
    assert config.clips == 8
    scenes = [clip.scene for clip in clips(config.split, 40, settings, seed=config.seed)]
    cuts = sum(bool(scene.cuts) for scene in scenes)
    assert 6 <= cuts <= 18
    assert all(3 <= len(shot.objects) <= 5 for scene in scenes for shot in scene.shots)
