"""The viewer's page, sheet, movie and command, without a browser."""

from __future__ import annotations

import base64
import dataclasses
import html.parser
import json
import re
import zlib

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tokenization import records, shards
from tokenization.explore import __main__ as command
from tokenization.explore import movie, page, sheet, view
from tokenization.explore.colours import palette
from tokenization.explore.items import Item
from tokenization.records import Record
from tokenization.shard_files import shard_info_path
from tokenization.trajectories import Trajectories, VideoInfo
from tokenization.tubelets import count_tubelets


def moving_squares(
    frames: int = 6, height: int = 48, width: int = 64, *, video_id: str = "squares"
) -> Item:
    """A background (1), a square that moves right (2), one that hides for a while (3)."""
    rgb = np.full((frames, height, width, 3), 90, np.uint8)
    labels = np.ones((frames, height, width), np.int64)
    for t in range(frames):
        labels[t, 4:16, 4 + 4 * t : 16 + 4 * t] = 2
        if t not in (2, 3):
            labels[t, 28:44, 8:24] = 3
    rgb[labels == 2] = (200, 40, 40)
    rgb[labels == 3] = (40, 80, 220)
    key_frames = np.zeros(frames, bool)
    key_frames[::4] = True
    trajectories = Trajectories.from_labels(
        labels,
        frame_times=np.arange(frames, dtype=np.float32) / 5,
        key_frames=key_frames,
        video=VideoInfo(video_id, width, height, 25.0, frames / 5),
        made_by={"segmenter": "drawn", "tracker": "drawn"},
    )
    return Item(rgb, trajectories, ("a red square passes a blue one",))


def unpack(text: str, kind: str) -> np.ndarray:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), kind)


def unpack_labels(text: str, frames: int, height: int, width: int) -> np.ndarray:
    """The inverse of `pack_labels`, as the page's script does it."""
    low, high = unpack(text, "u1").reshape(2, frames * height, width).astype(np.uint16)
    return np.bitwise_xor.accumulate(low | high << 8, axis=0).reshape(frames, height, width)


class PageReader(html.parser.HTMLParser):
    """Collects elements, attributes that load something, and the JSON of the videos."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.videos: list[dict] = []
        self._is_data = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.sources += [attributes[name] for name in ("src", "href") if name in attributes]
        self._is_data = attributes.get("type") == "application/json"
        if tag not in ("meta", "input", "path", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self._is_data:
            self.videos.append(json.loads(data))
            self._is_data = False


def test_page_is_self_contained_and_well_formed():
    text = page.render_page([moving_squares(), moving_squares(video_id="again")])
    reader = PageReader(text)
    assert reader.open == []
    assert reader.sources == []
    assert not re.search(r"https?://|url\(|@import", text)
    assert [video["id"] for video in reader.videos] == ["squares", "again"]


def test_page_data_says_what_the_item_says():
    item = moving_squares()
    [video] = PageReader(page.render_page([item])).videos
    trajectories = item.trajectories
    assert (video["width"], video["height"], len(video["frames"])) == (64, 48, 6)
    labels = unpack_labels(video["labels"], 6, 48, 64)
    np.testing.assert_array_equal(labels, trajectories.labels)
    areas = unpack(video["areas"], "<f4").reshape(3, 6)
    np.testing.assert_allclose(areas, trajectories.areas() / (48 * 64), rtol=1e-6)
    boxes = unpack(video["boxes"], "<u2").reshape(3, 6, 4)
    np.testing.assert_array_equal(boxes[1, 1], [8, 4, 20, 16])
    np.testing.assert_array_equal(boxes[2, 2], 0)
    assert video["keyFrames"] == trajectories.key_frames.tolist()
    assert video["tubelets"] == 3 * 14 * 14
    assert len(video["colours"]) == 4


@settings(deadline=None, max_examples=25)
@given(
    shape=st.tuples(*[st.integers(1, 9)] * 3),
    top=st.sampled_from([1, 255, 256, 65_535]),
    seed=st.integers(0, 99),
)
def test_packed_labels_are_lossless(shape, top, seed):
    labels = np.random.default_rng(seed).integers(0, top, shape, np.uint16, endpoint=True)
    np.testing.assert_array_equal(unpack_labels(page.pack_labels(labels), *shape), labels)


def test_labels_of_another_size_follow_the_frames_and_keep_their_ids():
    item = moving_squares()
    small = Item(item.frames, item.trajectories.resize(24, 32))
    packed = page.pack_item(small)
    labels = unpack_labels(packed["labels"], 6, 48, 64)
    np.testing.assert_array_equal(labels, np.kron(small.trajectories.labels, np.ones((2, 2), int)))


def test_large_video_is_shrunk_and_small_enough():
    """A 16-frame 640x360 video with grain, which JPEG likes least, stays under 1.5 MB."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (16, 23, 40, 3), np.uint8)
    frames = view.resize_frames(coarse, 640, 360)
    frames = np.clip(frames + rng.normal(0, 4, frames.shape), 0, 255).astype(np.uint8)
    cells = np.arange(9 * 15).reshape(9, 15) + 1
    labels = np.stack([np.roll(cells.repeat(40, 0).repeat(43, 1), 3 * t, 1) for t in range(16)])
    trajectories = Trajectories.from_labels(
        labels,
        frame_times=np.arange(16, dtype=np.float32),
        key_frames=np.arange(16) == 0,
        video=VideoInfo("grain", 640, 360, 25.0, 16.0),
    )
    text = page.render_page([Item(frames, trajectories)])
    [video] = PageReader(text).videos
    assert (video["width"], video["height"]) == (512, 288)
    assert len(text) < 1_500_000


def test_text_from_data_cannot_leave_its_place():
    item = moving_squares(video_id='</script><b id="x">&')
    item = Item(item.frames, item.trajectories, ("</script><script>alert(1)</script>",))
    reader = PageReader(page.render_page([item], title="<i>"))
    assert reader.open == []
    assert reader.videos[0]["captions"] == ["</script><script>alert(1)</script>"]
    assert reader.videos[0]["id"] == '</script><b id="x">&'


def test_fragment_is_a_section_without_global_names():
    fragment = page.render_fragment([moving_squares()])
    assert fragment.startswith("<section")
    assert fragment.rstrip().endswith("</section>")
    assert "<html" not in fragment
    outside = re.sub(r"<template>.*</template>", "", fragment, flags=re.S)
    assert not re.search(r'\sid="', outside)
    assert re.search(r"<script>\n\(\(\) => \{.*\}\)\(\);\n</script>", fragment, flags=re.S)


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="at least one video"):
        page.render_page([])
    item = moving_squares()
    with pytest.raises(ValueError, match="5 frames and 6 label maps"):
        Item(item.frames[:5], item.trajectories)


@pytest.mark.parametrize(("frames", "expected"), [(1, 196), (2, 196), (15, 1568), (16, 1568)])
def test_tubelets_of_a_224_pixel_model(frames, expected):
    assert count_tubelets(frames) == expected


def test_colours_are_stable_and_distinct():
    many = palette(400)
    np.testing.assert_array_equal(many[:51], palette(50))
    assert len(np.unique(many, axis=0)) == 401
    steps = np.abs(many[2:].astype(int) - many[1:-1]).sum(axis=1)
    assert steps.min() > 60, "neighbouring ids must look different"


def test_sheet_has_every_frame_and_its_overlay(tmp_path):
    item = moving_squares()
    sheet.write_sheet(tmp_path / "sheet.png", item, columns=4, width=160)
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == sheet.compose(item, columns=4, width=160).shape
    assert pixels.shape[1] >= 4 * 160
    assert pixels.shape[0] >= 2 * 2 * 120, "two rows of frames and overlays"
    red = np.abs(pixels.astype(int) - (200, 40, 40)).sum(axis=-1) < 30
    assert red.sum() > 6 * 20 * 20, "the red square of every frame"
    blue_overlay = view.paint(item.frames[0], item.trajectories.labels[0], palette(3))[36, 16]
    assert (pixels == blue_overlay).all(axis=-1).sum() > 2 * 20 * 20, "its neighbour, tinted"
    assert list(tmp_path.iterdir()) == [tmp_path / "sheet.png"]


def test_movie_is_readable_and_side_by_side(tmp_path):
    item = moving_squares()
    movie.write_movie(tmp_path / "movie.mp4", item, height=96)
    with av.open(str(tmp_path / "movie.mp4")) as file:
        stream = file.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert stream.average_rate == 5
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(stream)]
    assert np.shape(frames) == movie.compose(item, height=96).shape == (6, 108, 264, 3)
    left = frames[0][16:24, 16:24].reshape(-1, 3).mean(axis=0)
    assert np.abs(left - (200, 40, 40)).max() < 40
    assert not np.array_equal(frames[0], frames[-1])


def test_squashed_frames_are_shown_at_the_videos_aspect(tmp_path):
    item = moving_squares()
    squashed = Item(view.resize_frames(item.frames, 32, 32), item.trajectories.resize(32, 32))
    assert view.displayed_size(squashed) == (43, 32)
    assert movie.compose(squashed, height=96).shape[2] == 2 * 128 + 8


@pytest.mark.parametrize("write", [sheet.write_sheet, movie.write_movie])
def test_an_image_is_a_video_of_one_frame(write, tmp_path):
    item = moving_squares(frames=1)
    write(tmp_path / "one.out", item)
    assert (tmp_path / "one.out").stat().st_size > 0


def squashed(item: Item) -> Record:
    return Record.squash(item.trajectories, item.frames, size=32, captions=item.captions)


def test_command_reads_a_folder_of_records(tmp_path, capsys):
    names = ["a", "b", "c"]
    shards.write_records(tmp_path, [squashed(moving_squares(video_id=name)) for name in names])
    output = tmp_path / "look.html"
    assert command.main([str(tmp_path), f"--output={output}", "--max_videos=2"]) == 0
    videos = PageReader(output.read_text("utf-8")).videos
    assert [video["id"] for video in videos] == ["a", "b"]
    assert videos[0]["captions"] == ["a red square passes a blue one"]
    assert (videos[0]["width"], videos[0]["height"], videos[0]["shown"]) == (32, 32, [43, 32])
    assert command.main([str(tmp_path), f"--output={output}", "--video=c"]) == 0
    assert [video["id"] for video in PageReader(output.read_text("utf-8")).videos] == ["c"]
    assert command.main([str(tmp_path), f"--output={output}", "--video=d"]) == 2
    message = capsys.readouterr().err
    assert str(tmp_path) in message
    assert "'d'" in message
    assert command.main([str(tmp_path), f"--output={output}", "--split=test"]) == 2
    assert "it has: train" in capsys.readouterr().err


def test_command_tokenizes_a_video_file_as_the_config_says(tmp_path):
    movie.write_movie(tmp_path / "clip.mp4", moving_squares(8), height=96)
    config = tmp_path / "config.py"
    config.write_text(
        "import ml_collections\n"
        "def get_config(arg=None):\n"
        "    return ml_collections.ConfigDict({'pipeline': {'frames': 4, 'max_side': 132}})\n",
        encoding="utf-8",
    )
    output = tmp_path / "clip.html"
    arguments = [str(tmp_path / "clip.mp4"), f"--output={output}", f"--config={config}"]
    assert command.main(arguments) == 0
    [video] = PageReader(output.read_text("utf-8")).videos
    assert (video["id"], len(video["frames"]), video["width"]) == ("clip", 4, 132)
    assert video["size"] == [264, 108]
    assert len(video["colours"]) > 2, "more than one trajectory"


def test_a_short_video_is_told_to_repeat_its_last_frame(tmp_path, capsys):
    movie.write_movie(tmp_path / "short.mp4", moving_squares(5), height=96)
    movie.write_movie(tmp_path / "long.mp4", moving_squares(16), height=96)
    for name, said in (("short", True), ("long", False)):
        assert command.main([str(tmp_path / f"{name}.mp4"), f"--output={tmp_path / 'o.png'}"]) == 0
        printed = capsys.readouterr().out
        assert ("repeated" in printed) == said
        if said:
            assert "short: 5 frames of its own, the last one is repeated 11 times" in printed
            assert "configs/tokenization/classical.py:frames=5 asks for 5" in printed


def test_a_damaged_video_is_told(tmp_path, capsys):
    rgb = np.random.default_rng(0).integers(0, 255, (16, 48, 64, 3), np.uint8)
    movie.write_movie(tmp_path / "clip.mp4", dataclasses.replace(moving_squares(16), frames=rgb))
    content = bytearray((tmp_path / "clip.mp4").read_bytes())
    middle, size = int(0.4 * len(content)), len(content) // 4
    content[middle : middle + size] = np.random.default_rng(1).bytes(size)
    (tmp_path / "clip.mp4").write_bytes(content)
    assert command.main([str(tmp_path / "clip.mp4"), f"--output={tmp_path / 'o.png'}"]) == 0
    assert re.search(r"clip: \d+ frames? damaged, passed over", capsys.readouterr().out)


def test_command_never_overwrites_its_input(tmp_path, monkeypatch, capsys):
    movie.write_movie(tmp_path / "clip.mp4", moving_squares(8), height=96)
    (tmp_path / "link.mp4").symlink_to("clip.mp4")
    before = (tmp_path / "clip.mp4").read_bytes()
    monkeypatch.chdir(tmp_path)
    for output in (tmp_path / "clip.mp4", "clip.mp4", "link.mp4"):
        assert command.main(["clip.mp4", f"--output={output}"]) == 2
        assert "would overwrite the input" in capsys.readouterr().err
    assert (tmp_path / "clip.mp4").read_bytes() == before


def test_command_names_a_file_that_is_no_video(tmp_path, capsys):
    (tmp_path / "text.mp4").write_text("no video")
    assert command.main([str(tmp_path / "text.mp4"), f"--output={tmp_path / 'o.html'}"]) == 2
    assert "text.mp4" in capsys.readouterr().err
    assert not (tmp_path / "o.html").exists()


def test_a_video_that_is_not_among_the_records(tmp_path, capsys):
    names = ["landscape", "portrait"]
    shards.write_records(tmp_path, [squashed(moving_squares(video_id=name)) for name in names])
    [info] = records.finished_shards(tmp_path)
    bad = records.Quarantined("broken", "v/broken.mp4", "is truncated", "copy it again")
    note = shard_info_path(tmp_path, "train", 0)
    note.write_text(dataclasses.replace(info, quarantine=(bad,)).to_json())
    for video, said in {
        "portrai": "of 2 records has no video 'portrai'; did you mean 'portrait'?",
        "x": "split 'train' of 2 records has no video 'x'; the first is 'landscape'",
        "broken": "could not be read: v/broken.mp4 is truncated; copy it again",
    }.items():
        given = [str(tmp_path), f"--output={tmp_path / 'o.html'}", f"--video={video}"]
        assert command.main(given) == 2
        assert said in capsys.readouterr().err


def test_a_copy_without_the_notes_of_its_shards(tmp_path, capsys):
    names = ["landscape", "portrait"]
    shards.write_records(tmp_path, [squashed(moving_squares(video_id=name)) for name in names])
    shard_info_path(tmp_path, "train", 0).unlink()
    given = [str(tmp_path), f"--output={tmp_path / 'o.png'}"]
    assert command.main([*given, "--video=portrait"]) == 0
    assert command.main([*given, "--video=x"]) == 2
    assert "split 'train' has no record of video 'x'" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".html", ".mp4", ".png"])
def test_command_writes_what_the_suffix_says(suffix, tmp_path, monkeypatch, capsys):
    asked = []

    def read_records(directory, **options):
        asked.append(options)
        return [moving_squares(), moving_squares(video_id="b")][: options["max_videos"]]

    monkeypatch.setattr(command, "read_records", read_records)
    output = tmp_path / f"out{suffix}"
    assert command.main([str(tmp_path), f"--output={output}", "--max_videos=2"]) == 0
    assert output.stat().st_size > 0
    assert asked[0]["max_videos"] == (2 if suffix == ".html" else 1)
    assert str(output) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "output", "said"),
    [
        ("missing.mp4", "o.html", ["missing.mp4 does not exist", "tokenization.extract"]),
        ("alone.npz", "o.html", ["alone.npz", "give the video itself"]),
        ("folder", "o.html", ["folder --output=RECORDS", "tokenization.extract"]),
        ("alone.npz", "o.gif", ["o.gif", ".html, .mp4 or .png"]),
    ],
)
def test_command_errors_name_the_file_and_the_remedy(name, output, said, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    moving_squares().trajectories.save(tmp_path / "alone.npz")
    assert command.main([str(tmp_path / name), f"--output={tmp_path / output}"]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in said), message
    assert not (tmp_path / output).exists()
