"""Properties of the contract between the packages."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tokenization import trajectories
from tokenization.trajectories import Trajectories, VideoInfo

VIDEO = VideoInfo("clip", 640, 360, 25.0, 2.0)


def build(labels, **changes):
    labels = np.asarray(labels)
    frames = len(labels)
    parts = {
        "frame_times": np.arange(frames, dtype=np.float32) / 25,
        "key_frames": np.arange(frames) % 2 == 0,
        "video": VIDEO,
        "made_by": {"segmenter": "test", "settings": {"area": 3, "names": ["a", "b"]}},
    }
    return Trajectories.from_labels(labels, **parts | changes)


shapes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6))
ids = st.one_of(st.integers(0, 4), st.sampled_from([255, 256, 300, 65_535, 10**6]))
maps = shapes.flatmap(lambda shape: hnp.arrays(np.int32, shape, elements=ids))
videos = maps.map(build)


def many(n, frames=1):
    """n trajectories of one pixel each, all in every frame."""
    return build(np.arange(n).reshape(1, 1, n).repeat(frames, 0) + 1)


@settings(deadline=None)
@given(maps)
def test_labels_become_dense_and_keep_their_order(labels):
    got = build(labels)
    assert got.labels.dtype == np.uint16
    present = np.unique(labels[labels > 0])
    assert len(got) == len(present)
    np.testing.assert_array_equal(np.concatenate([[0], present])[got.labels], labels)


@settings(deadline=None)
@given(videos)
def test_dense_labels_are_left_alone(video):
    assert build(video.labels) == build(video.labels.astype(np.int64)) == video


@settings(deadline=None)
@given(videos)
def test_presence_areas_and_boxes(video):
    frames, height, width = video.labels.shape
    n = len(video)
    areas, presence, boxes = video.areas(), video.presence(), video.boxes()
    assert boxes.shape == (n, frames, 4)
    for i in range(n):
        for t in range(frames):
            mask = video.labels[t] == i + 1
            assert areas[i, t] == mask.sum()
            assert presence[i, t] == mask.any()
            expected = np.zeros(4)
            if mask.any():
                y, x = np.nonzero(mask)
                expected = [x.min(), y.min(), x.max() + 1, y.max() + 1]
                expected = np.array(expected) / [width, height, width, height]
            np.testing.assert_allclose(boxes[i, t], expected, rtol=1e-6)


def test_a_box_reaches_the_far_edge():
    video = build(np.ones((1, 3, 5), np.int32))
    np.testing.assert_array_equal(video.boxes(), [[[0, 0, 1, 1]]])


@settings(deadline=None)
@given(videos, st.integers(0, 3))
def test_padded_masks_say_what_the_labels_say(video, spare):
    masks = video.padded_masks(len(video) + spare)
    assert masks.shape == (len(video) + spare, *video.labels.shape)
    np.testing.assert_array_equal(masks.sum(axis=0), video.labels > 0)
    assert not masks[len(video) :].any()
    for i in range(len(video)):
        np.testing.assert_array_equal(masks[i], video.labels == i + 1)


def test_padded_masks_never_drop_a_trajectory():
    with pytest.raises(ValueError, match="'clip' has 4 trajectories, more than n_max=3"):
        many(4).padded_masks(3)


@settings(deadline=None)
@given(videos, st.integers(1, 9), st.integers(1, 9))
def test_resize_takes_the_nearest_pixel_and_renumbers(video, height, width):
    _, old_height, old_width = video.labels.shape
    # Pixel centre (i + 1/2) / new lies in the old pixel that is printed there.
    rows = [(2 * i + 1) * old_height // (2 * height) for i in range(height)]
    columns = [(2 * j + 1) * old_width // (2 * width) for j in range(width)]
    nearest = video.labels[:, rows][:, :, columns]
    got = video.resize(height, width)
    assert got == build(nearest)
    assert video.resize(old_height, old_width) == video


def test_resize_to_nothing():
    with pytest.raises(ValueError, match="'clip' to 0x4"):
        many(2).resize(0, 4)


@settings(deadline=None)
@given(videos, st.data())
def test_take_frames(video, data):
    frames = len(video.labels)
    index = data.draw(st.lists(st.integers(0, frames - 1), min_size=1, max_size=6))
    got = video.take_frames(index)
    np.testing.assert_array_equal(got.labels, build(video.labels[index]).labels)
    np.testing.assert_array_equal(got.frame_times, video.frame_times[index])
    np.testing.assert_array_equal(got.key_frames[1:], video.key_frames[index][1:])
    assert got.key_frames[0]
    assert got.video == video.video and got.made_by == video.made_by


def test_take_frames_leaves_its_source_alone():
    video = build(np.ones((3, 2, 2), np.int32))
    video.take_frames([1, 2])
    np.testing.assert_array_equal(video.key_frames, [True, False, True])


@pytest.mark.parametrize(
    ("index", "message"), [([], "selection of 0 frames"), ([0, 3], "frames 0..2, asked for")]
)
def test_take_frames_that_are_not_there(index, message):
    with pytest.raises(ValueError, match=message):
        many(2, frames=3).take_frames(index)


@pytest.mark.parametrize("n", [0, 1, 255, 256, 300, 65_535])
def test_any_number_of_trajectories(n):
    video = many(n) if n else build(np.zeros((1, 1, 3), np.int32))
    assert len(video) == n
    assert video.presence().shape == (n, 1)
    assert video.boxes().shape == (n, 1, 4)
    assert video.areas().sum() == n


def test_more_trajectories_than_labels():
    with pytest.raises(ValueError, match="65536 trajectories do not fit"):
        many(65_536)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((0, 4, 4), np.int32), "'clip' is empty"),
        (np.zeros((2, 0, 4), np.int32), "'clip' is empty"),
        (np.full((1, 2, 2), -1), "found -1"),
    ],
)
def test_labels_that_are_no_video(labels, message):
    with pytest.raises(ValueError, match=message):
        build(labels)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": np.full((2, 2, 2), 2, np.uint16)}, "trajectory 1 of 2 owns no pixel"),
        ({"labels": np.ones((2, 2, 2), np.int32)}, "must be uint16"),
        ({"frame_times": np.zeros(3, np.float32)}, "2 label maps, 3 frame times"),
        ({"key_frames": np.array([False, True])}, "frame 0 must be a key frame"),
    ],
)
def test_parts_that_do_not_fit(annotations_unchecked, changes, message):
    parts = {
        "labels": np.ones((2, 2, 2), np.uint16),
        "frame_times": np.zeros(2, np.float32),
        "key_frames": np.array([True, False]),
        "video": VIDEO,
    }
    with pytest.raises(ValueError, match=message):
        Trajectories(**parts | changes)


@settings(deadline=None)
@given(videos)
def test_ours_to_official_and_back(video):
    mask, graph = video.to_official()
    assert mask.dtype == np.uint16
    for t in range(len(mask)):
        used = np.setdiff1d(mask[t], 0)
        np.testing.assert_array_equal(used, np.arange(1, len(used) + 1))
    again = Trajectories.from_official(
        mask,
        graph,
        frame_times=video.frame_times,
        key_frames=video.key_frames,
        video=video.video,
        made_by=video.made_by,
    )
    assert again == video


PARTS = {
    "frame_times": np.zeros(3, np.float32),
    "key_frames": np.array([True, False, True]),
    "video": VIDEO,
}


@settings(deadline=None)
@given(
    hnp.arrays(np.uint8, (3, 4, 5), elements=st.integers(0, 6)),
    st.lists(st.permutations(range(1, 9)), min_size=3, max_size=3),
    hnp.arrays(bool, (8, 3)),
)
def test_official_to_ours(mask, columns, absent):
    """Pixels follow the graph; ids that the graph does not name are lost, and nothing else."""
    graph = np.where(absent, 0, np.array(columns).T)
    got = Trajectories.from_official(mask, graph, **PARTS)
    owner = np.zeros(mask.shape, int)
    for i, row in enumerate(graph):
        for t, number in enumerate(row):
            if number:
                owner[t][mask[t] == number] = i + 1
    np.testing.assert_array_equal(got.labels, trajectories.compact(owner))
    again = Trajectories.from_official(*got.to_official(), **PARTS)
    assert again == got


def test_official_ids_above_255_do_not_wrap():
    video = many(300, frames=2)
    mask, graph = video.to_official()
    assert mask.max() == graph.max() == 300


def test_official_graph_may_name_ids_that_no_pixel_has():
    mask = np.array([[[1, 2]]] * 3, np.uint8)
    graph = np.array([[1, 1, 1], [10**12, 7, 0]])
    got = Trajectories.from_official(mask, graph, **PARTS)
    np.testing.assert_array_equal(got.labels, [[[1, 0]]] * 3)


@pytest.mark.parametrize(
    ("mask", "graph", "message"),
    [
        (np.ones((3, 1, 2), int), [[1, 1, 1], [0, 0, 1]], "rows 0 and 1 .* id 1 in frame 2"),
        (np.ones((3, 1, 2), int), [[-1, 1, 1]], "ids >= 0"),
        (-np.ones((3, 1, 2), int), [[1, 1, 1]], "ids >= 0"),
        (np.ones((3, 1, 2), int), [[1, 1]], "3 frames, the graph 2"),
        (np.ones((0, 1, 2), int), np.zeros((1, 0), int), "is empty"),
    ],
)
def test_official_pairs_that_contradict_themselves(annotations_unchecked, mask, graph, message):
    with pytest.raises(ValueError, match=message):
        Trajectories.from_official(mask, np.array(graph), **PARTS)


@settings(deadline=None)
@given(videos)
def test_save_and_load(tmp_path_factory, video):
    path = tmp_path_factory.mktemp("saved") / "clip.npz"
    video.save(path)
    assert Trajectories.load(path) == video
    assert [file.name for file in path.parent.iterdir()] == ["clip.npz"]


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "clip.npz"
    many(3).save(path)
    before = path.read_bytes()

    def fails(file, **arrays):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", fails)
    with pytest.raises(OSError, match="No space left"):
        many(4).save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["clip.npz"]


class Bomb:
    """Runs code when it is unpickled."""

    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


@pytest.mark.parametrize("part", ["labels", "frame_times", "meta"])
def test_no_pickle_is_opened(tmp_path, part):
    path = tmp_path / "clip.npz"
    many(3).save(path)
    with np.load(path) as file:
        parts = dict(file)
    parts[part] = np.array([Bomb()], object)
    np.savez(path, **parts)
    with pytest.raises(ValueError, match=r"clip\.npz"):
        Trajectories.load(path)
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=r"clip\.npz"):
        Trajectories.load(path)
    assert not Bomb.exploded


def test_every_truncation_names_the_file(tmp_path):
    path = tmp_path / "clip.npz"
    many(3).save(path)
    whole = path.read_bytes()
    for size in [0, 1, 3, 30, len(whole) // 2, len(whole) - 30, len(whole) - 1]:
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"clip\.npz .*extract the video again"):
            Trajectories.load(path)


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_a_changed_byte_is_noticed_or_harmless(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("changed") / "clip.npz"
    video = many(3)
    video.save(path)
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        got = Trajectories.load(path)
    except ValueError as error:
        assert "clip.npz" in str(error)
    else:
        assert got == video


@settings(deadline=None, max_examples=30)
@given(st.binary(max_size=200))
def test_random_bytes_name_the_file(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("random") / "clip.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"clip\.npz"):
        Trajectories.load(path)


def test_other_numpy_files_name_the_file(tmp_path):
    path = tmp_path / "clip.npy"
    np.save(path, np.zeros(3))
    with pytest.raises(ValueError, match=r"clip\.npy"):
        Trajectories.load(path)
    path = tmp_path / "clip.npz"
    np.savez(path, labels=np.zeros((1, 1, 1), np.uint16))
    with pytest.raises(ValueError, match=r"clip\.npz .*meta"):
        Trajectories.load(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        Trajectories.load(tmp_path / "none.npz")


def test_labels_are_scanned_once_for_their_number():
    scans = []

    class Watched(np.ndarray):
        def max(self, *args, **kwargs):
            scans.append(self)
            return super().max(*args, **kwargs)

    trajectories = dataclasses.replace(many(2), labels=many(2).labels.view(Watched))
    scans.clear()
    assert [len(trajectories) for _ in range(3)] == [2, 2, 2] and len(scans) <= 1
    assert len(pickle.loads(pickle.dumps(many(3)))) == 3
    assert len(trajectories.take_frames([0]).resize(1, 1)) == 1
