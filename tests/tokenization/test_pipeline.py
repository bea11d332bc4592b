"""From frames to trajectories: both ways of cutting clips, all modes, and odd videos."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from tokenization import keyframes, pipeline
from tokenization.keyframes import KeyframeSettings
from tokenization.pipeline import Pipeline, PipelineSettings, build, clip_starts
from tokenization.protocols import Clip
from tokenization.recorder import ExtractSettings
from tokenization.trajectories import VideoInfo
from tokenization.video import Frames
from trajvit_jax import config

CONFIG = Path(__file__).parents[2] / "configs/tokenization/classical.py"


def frames_of(rgb: np.ndarray) -> Frames:
    t, height, width, _ = rgb.shape
    times = np.arange(t, dtype=np.float32) / 8
    return Frames(rgb, times, np.arange(t), VideoInfo("made", width, height, 8.0, t / 8))


def moving_square(t: int = 8, step: int = 4, side: int = 80) -> np.ndarray:
    rng = np.random.default_rng(0)
    back = np.clip(rng.normal(125, 6, (side, side, 3)), 0, 255).astype(np.uint8)
    surface = np.clip(rng.normal((205, 45, 45), 12, (22, 22, 3)), 0, 255).astype(np.uint8)
    rgb = np.stack([back] * t)
    for i in range(t):
        rgb[i, 20:42, 4 + step * i : 26 + step * i] = surface
    return rgb


def with_cut(t: int = 8, cut: int = 5) -> np.ndarray:
    rgb = moving_square(t, step=2)
    rgb[cut:] = 255 - rgb[cut:][:, ::-1] // 3
    return rgb


class Halves:
    """Cuts every frame at its middle column."""

    name = "halves"

    def segment(self, frames: np.ndarray) -> np.ndarray:
        labels = np.ones(frames.shape[:3], np.int32)
        labels[:, :, frames.shape[2] // 2 :] = 2
        return labels


@dataclasses.dataclass
class Still:
    """Leaves every segment where it is; cannot give birth."""

    name: str = "still"
    gives_birth: bool = False
    seen: list[Clip] = dataclasses.field(default_factory=list)

    def track(self, clips: Sequence[Clip]) -> list[np.ndarray]:
        self.seen.extend(clips)
        return [np.repeat(clip.segments[0][None], len(clip.frames), 0) for clip in clips]


def test_a_moving_square_is_one_trajectory():
    rgb = moving_square()
    found = build().tokenize(frames_of(rgb))
    labels = found.labels
    owners = {
        int(np.bincount(labels[i, 24:38, 8 + 4 * i : 22 + 4 * i].flat).argmax()) for i in range(8)
    }
    assert len(owners) == 1
    assert labels.shape == rgb.shape[:3]
    assert ((labels > 0).mean((1, 2)) > 0.95).all()
    assert found.key_frames.tolist() == [True, False] * 4


def test_all_labels_restart_at_a_cut():
    found = build().tokenize(frames_of(with_cut()))
    assert found.key_frames[5]
    assert not set(np.unique(found.labels[:5])) & set(np.unique(found.labels[5:]))


def test_the_same_frames_give_the_same_trajectories():
    assert build().tokenize(frames_of(with_cut())) == build().tokenize(frames_of(with_cut()))


@pytest.mark.parametrize("t", [1, 2, 5])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (3, 2), (31, 17)])
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"segmenter": "patches", "tracker": "patches"},
        {"tracker": "none", "split": "stride", "clip_limit": 1},
    ],
    ids=["flow", "patches", "none"],
)
def test_odd_sizes_and_single_frames(t: int, shape: tuple[int, int], values: dict[str, object]):
    rgb = np.random.default_rng(0).integers(0, 256, (t, *shape, 3), dtype=np.uint8)
    found = build(PipelineSettings(**values)).tokenize(frames_of(rgb))
    assert found.labels.shape == (t, *shape)
    assert found.labels.min() > 0


def test_one_colour_is_one_trajectory():
    assert len(build().tokenize(frames_of(np.full((6, 40, 60, 3), 90, np.uint8)))) == 1


def test_a_tracker_without_births_runs_through_the_next_key_frame_and_is_linked():
    tracker = Still()
    settings = PipelineSettings(clip_limit=3)
    found = Pipeline(settings, Halves(), tracker).tokenize(frames_of(moving_square(t=7, step=1)))
    assert found.key_frames.tolist() == [True, False, False, True, False, True, False]
    assert [len(clip.frames) for clip in tracker.seen] == [4, 3, 2]
    assert all(list(clip.segments) == [0] for clip in tracker.seen)
    assert len(found) == 2
    assert (found.labels[:, :, :40] == 1).all()
    assert (found.labels[:, :, 40:] == 2).all()


def test_the_link_threshold_is_used():
    class Shifting(Halves):
        def segment(self, frames: np.ndarray) -> np.ndarray:
            labels = np.ones(frames.shape[:3], np.int32)
            for number in range(len(frames)):
                labels[number, :, 40 + 10 * number :] = 2
            return labels

    def count(link_iou: float) -> int:
        settings = PipelineSettings(split="stride", clip_limit=2, link_iou=link_iou)
        rgb = moving_square(t=4, step=1)
        return len(Pipeline(settings, Shifting(), Still()).tokenize(frames_of(rgb)))

    # The halves meet the shifted ones with an IoU of 0.8 and of 0.75.
    assert (count(0.7), count(0.78), count(0.9)) == (2, 3, 4)


@pytest.mark.parametrize(
    ("split", "limit", "starts"),
    [
        ("both", None, [0, 2, 3, 5, 6]),
        ("keyframes", None, [0, 5]),
        ("stride", None, [0, 2, 4, 6]),
        ("stride", 3, [0, 3, 6]),
        ("both", 8, [0, 5]),
    ],
)
def test_modes_of_splitting(split: str, limit: int | None, starts: list[int]):
    settings = PipelineSettings(split=split, clip_limit=limit)  # type: ignore[arg-type]
    cuts, found = clip_starts(with_cut(), settings)
    assert np.flatnonzero(found).tolist() == starts
    assert np.flatnonzero(cuts).tolist() == ([0] if split == "stride" else [0, 5])


def test_made_by_names_what_made_it():
    rgb = moving_square(t=2)
    one = build().tokenize(frames_of(rgb)).made_by
    other = build(PipelineSettings(clip_limit=1)).tokenize(frames_of(rgb)).made_by
    assert one["segmenter"] == "classical" and one["tracker"] == "flow"
    assert one["settings"]["flow"]["superpixels"] == 1000  # type: ignore[index]
    assert one["hash"] != other["hash"]
    changed = rgb.copy()
    changed[0, 0, 0, 0] ^= 1
    assert build().tokenize(frames_of(changed)).made_by["hash"] != one["hash"]
    assert build().tokenize(frames_of(rgb)).made_by["hash"] == one["hash"]


def test_trajectories_of_the_pipeline_survive_a_file(tmp_path: Path):
    found = build().tokenize(frames_of(with_cut()))
    found.save(tmp_path / "made.npz")
    assert type(found).load(tmp_path / "made.npz") == found


def test_an_empty_video_is_refused():
    with pytest.raises(ValueError, match="empty video"):
        build().tokenize(frames_of(np.zeros((0, 4, 4, 3), np.uint8)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"segmenter": "clasical"}, "did you mean 'classical'"),
        ({"tracker": "flown"}, "did you mean 'flow'"),
        ({"split": "non"}, "known: both, keyframes, stride"),
        ({"frames": 0}, "frames = 0 must be >= 1"),
        ({"clip_limit": 0}, "clip_limit = 0 must be >= 1"),
        ({"link_iou": 1.5}, "within 0..1"),
    ],
)
def test_settings_are_checked(values: dict, message: str, annotations_unchecked):
    with pytest.raises(ValueError, match=message):
        PipelineSettings(**values)


def test_the_config_gives_the_defaults():
    found = config.to_settings(ExtractSettings, config.load(str(CONFIG)))
    assert found == ExtractSettings()
    short = config.load(f"{CONFIG}:frames=8,split=keyframes,limit=3").pipeline
    assert (short.frames, short.split, short.clip_limit) == (8, "keyframes", 3)


def test_every_named_part_can_be_built():
    for name in pipeline.SEGMENTERS:
        assert build(PipelineSettings(segmenter=name)).segmenter.name == name
    for name in pipeline.TRACKERS:
        assert build(PipelineSettings(tracker=name)).tracker.name == name


def test_videos_together_are_as_alone():
    videos = [frames_of(rgb) for rgb in (with_cut(4, 2), moving_square(4), with_cut(4, 2)[:, ::2])]
    for settings in (PipelineSettings(), PipelineSettings(clip_limit=2)):
        for tokenizer in (build(settings), Pipeline(settings, Halves(), Still())):
            together = tokenizer.tokenize_batch(videos)
            assert together == [tokenizer.tokenize(video) for video in videos]


def test_settings_of_networks_are_named_only_where_they_are_used():
    rgb = moving_square()
    embedded = build().tokenize(frames_of(rgb)).made_by["settings"]
    assert "learned" not in embedded
    settings = PipelineSettings(tracker="sam2")
    with_network = Pipeline(settings, Halves(), Still()).tokenize(frames_of(rgb)).made_by
    assert with_network["settings"]["learned"]["sam2"]["size"] == "small"
    # How many go through a device at once is no part of what was made.
    assert with_network["settings"]["learned"]["running"] == {"precision": "auto"}


def test_where_weights_came_from_is_told_but_makes_no_other_dataset():
    """A machine on which they were put by hand goes on with what another one began."""
    rgb, settings = moving_square(), PipelineSettings(tracker="sam2")
    learned = dataclasses.replace(settings.learned, revisions=(("sam2.pt", "abc123"),))
    downloaded = dataclasses.replace(settings, learned=learned)
    tokenizers = [Pipeline(one, Halves(), Still()) for one in (settings, downloaded)]
    by_hand, told = (one.tokenize(frames_of(rgb)).made_by for one in tokenizers)
    assert told == {**by_hand, "revisions": {"sam2.pt": "abc123"}}
    assert pipeline.noted(settings) == pipeline.noted(downloaded)


def test_trackers_see_the_frames_between():
    rgb = with_cut()
    gaps = tuple(np.full((i, 80, 80, 3), i, np.uint8) for i in range(7))
    frames = dataclasses.replace(frames_of(rgb), between=gaps)
    shots, linked = Still(gives_birth=True), Still()
    for tracker, lengths in ((shots, [[0, 1, 2, 3], [5, 6]]), (linked, [[0, 1, 2, 3, 4], [5, 6]])):
        Pipeline(PipelineSettings(split="keyframes"), Halves(), tracker).tokenize(frames)
        assert [[len(gap) for gap in clip.between] for clip in tracker.seen] == lengths
    hashes = [build().tokenize(one).made_by["hash"] for one in (frames, frames_of(rgb))]
    assert hashes[0] != hashes[1]


def test_only_the_flow_tracker_asks_for_frames_between():
    assert PipelineSettings().between == PipelineSettings().flow.between > 0
    assert PipelineSettings(tracker="none").between == 0


def test_a_change_that_the_frames_between_do_not_show_is_no_cut():
    rgb = np.stack([np.full((40, 60, 3), level, np.uint8) for level in (20, 120, 20)])
    rgb[:, :, 30:, 0] += 90
    steps = [np.linspace(rgb[i], rgb[i + 1], 12)[1:-1].astype(np.uint8) for i in range(2)]
    sudden = [steps[0], np.stack([rgb[1]] * 4)]
    settings = PipelineSettings(split="keyframes")
    assert clip_starts(rgb, settings)[0].tolist() == [True, True, True]
    assert clip_starts(rgb, settings, steps)[0].tolist() == [True, False, False]
    assert clip_starts(rgb, settings, sudden)[0].tolist() == [True, False, True]


def test_a_camera_that_flow_can_follow_makes_no_cut():
    """Brightness and histogram change from step to step, as in a fast pan, or it is a cut."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(40, 120, (20, 60, 3)).astype(np.uint8)
    ground = cv2.resize(coarse, (480, 160), interpolation=cv2.INTER_CUBIC)
    ground[:, 240:] += 100
    views = np.stack([ground[:, x : x + 200] for x in range(0, 270, 18)])
    rgb, between = views[::5], [views[1:5], views[6:10]]
    settings = PipelineSettings(split="keyframes", keyframes=KeyframeSettings(rgb_threshold=5.0))
    flagged = keyframes.detect(views, settings.keyframes)
    assert flagged[1:].any()
    assert clip_starts(rgb, settings, between)[0].tolist() == [True, False, False]
    other = np.ascontiguousarray(views[:, ::-1, ::-1]) // 4
    cut = [views[1:5], other[6:10]]
    found = clip_starts(np.stack([rgb[0], rgb[1], other[10]]), settings, cut)[0]
    assert found.tolist() == [True, False, True]
