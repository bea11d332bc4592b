"""Decoding: what is read from good files, and what is said of bad ones."""

from __future__ import annotations

import gc
import os
import pickle
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter

from tokenization import video
from tokenization.video import VideoError


def levels(frames: video.Frames) -> np.ndarray:
    return frames.rgb.mean((1, 2, 3))


def test_samples_frames_with_their_times(clips):
    found = video.decode(clips.video(frames=20, fps=10), frames=4)
    assert found.indices.tolist() == [2, 7, 12, 17]
    np.testing.assert_allclose(found.times, [0.2, 0.7, 1.2, 1.7], atol=1e-6)
    np.testing.assert_allclose(levels(found), [clips.level(i) for i in found.indices], atol=3)
    assert found.rgb.shape == (4, 48, 64, 3) and found.repeated == 0
    assert (found.video.id, found.video.width, found.video.height) == ("clip", 64, 48)
    assert found.video.fps == pytest.approx(10) and found.video.duration == pytest.approx(2)


def test_frames_between_the_sampled_ones(clips):
    path = clips.video(frames=20, fps=10)
    found = video.decode(path, frames=4, between=2, max_side=32)
    assert found.indices.tolist() == [2, 7, 12, 17]
    expected = [[3, 5], [8, 10], [13, 15]]
    for gap, indices in zip(found.between, expected, strict=True):
        assert gap.shape == (2, *found.rgb.shape[1:])
        np.testing.assert_allclose(gap.mean((1, 2, 3)), [clips.level(i) for i in indices], atol=3)
    assert [len(gap) for gap in video.decode(path, frames=40, between=2).between] == [0] * 39
    assert video.decode(path, frames=4).between == ()


def test_one_decode_a_video(clips, monkeypatch):
    """Frames are counted without decoding them, so a sound file is decoded once."""
    path, passes = clips.video(), []
    decode = video._Source.decode
    monkeypatch.setattr(
        video._Source, "decode", lambda *a, **k: passes.append(1) or decode(*a, **k)
    )
    video.decode(path)
    assert len(passes) == 1


def test_decoded_frames_are_let_go(clips):
    """PyAV ties a frame whose side data is read to itself: a 4k one is 12 MB each."""
    path = clips.video(frames=20, rotation=90)
    gc.collect()
    gc.disable()
    try:
        video.decode(path, frames=10, between=1)
        # Not isinstance, which asks every object of every library for its class.
        kept = [one for one in gc.get_objects() if issubclass(type(one), SideDataContainer)]
        assert len(kept) <= 1  # of the frame that tells how all are to be shown
    finally:
        gc.enable()


def test_wrong_packet_count_is_put_right(clips, monkeypatch):
    """Packets are not always frames: the decode has the last word."""
    path = clips.video(frames=20)
    expected = video.decode(path, frames=8)
    monkeypatch.setattr(
        video._Source, "list_times", lambda self, **where: [i / 10 for i in range(33)]
    )
    found = video.decode(path, frames=8)
    np.testing.assert_array_equal(found.indices, expected.indices)
    np.testing.assert_array_equal(found.rgb, expected.rgb)


def test_variable_frame_rate_keeps_presentation_times(clips):
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 5.0, 5.5]
    found = video.decode(clips.video(frames=8, times=times), frames=8)
    np.testing.assert_allclose(found.times, times, atol=1e-6)


def test_span_of_a_variable_frame_rate_begins_with_the_frame_on_screen(clips):
    times = [0.0, 0.1, 0.2, 0.3, 2.0, 2.1, 5.0, 5.5]
    found = video.decode(clips.video(frames=8, times=times), frames=3, start=1.0, end=5.2)
    np.testing.assert_allclose(found.times, [0.3, 2.0, 2.1], atol=1e-6)
    assert found.indices.tolist() == [0, 1, 2]
    np.testing.assert_allclose(levels(found), [clips.level(i) for i in (3, 4, 5)], atol=3)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_late_span_seeks_and_finds_the_same_frames(clips, codec):
    path = clips.video(frames=60, codec=codec, fps=10)
    whole = video.decode(path, frames=60)
    part = video.decode(path, frames=7, start=4.0, end=4.7)
    np.testing.assert_allclose(part.times, whole.times[40:47])
    np.testing.assert_array_equal(part.rgb, whole.rgb[40:47])


def test_a_seek_that_lands_too_late_is_not_trusted(clips, monkeypatch):
    path = clips.video(frames=60, fps=10, g="10")
    expected = video.decode(path, frames=7, start=3.0, end=3.7)
    seek = video._Source._seek
    monkeypatch.setattr(video._Source, "_seek", lambda self, time: seek(self, time and time + 2.5))
    found = video.decode(path, frames=7, start=3.0, end=3.7)
    np.testing.assert_array_equal(found.rgb, expected.rgb)
    np.testing.assert_array_equal(found.times, expected.times)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_in_the_metadata_is_applied(clips, degrees):
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 0, 0)
    image[24:, :32] = (0, 250, 0)
    path = clips.video(frames=np.stack([image] * 3), rotation=degrees)
    with av.open(str(path)) as container:
        # FFmpeg's angle counts counterclockwise, as np.rot90 does.
        turns = next(container.decode(video=0)).rotation // 90
    assert turns % 4 == (degrees // 90) % 4
    found = video.decode(path, frames=3)
    expected = np.rot90(image, turns)
    assert found.rgb.shape[1:] == expected.shape
    assert (found.video.height, found.video.width) == expected.shape[:2]
    assert np.abs(found.rgb[0].astype(int) - expected).mean() < 8


@pytest.mark.parametrize("mirror", ["hflip", "vflip"])
@pytest.mark.parametrize("degrees", [0, 90])
def test_mirroring_in_the_metadata_is_applied(clips, degrees, mirror):
    """Against the display matrix: pixel (x, y) is shown at (ax + cy, bx + dy)."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32] = (250, 0, 0)
    path = clips.video(frames=np.stack([image] * 2), rotation=degrees, mirror=mirror)
    plain = video.decode(clips.video("plain.mp4", frames=np.stack([image] * 2)), frames=1).rgb[0]
    with av.open(str(path)) as container:
        data = next(container.decode(video=0)).side_data["DISPLAYMATRIX"]
    a, b, _, c, d = np.sign(np.frombuffer(data, np.int32)[:5])
    y, x = np.mgrid[:48, :64]
    shown_x, shown_y = a * x + c * y, b * x + d * y
    shown_x, shown_y = shown_x - shown_x.min(), shown_y - shown_y.min()
    expected = np.zeros((shown_y.max() + 1, shown_x.max() + 1, 3), np.uint8)
    expected[shown_y, shown_x] = plain
    np.testing.assert_array_equal(video.decode(path, frames=1).rgb[0], expected)


def test_orientation_of_a_photo_is_applied(clips):
    """EXIF orientation 6: the photo is shown turned clockwise."""
    image = np.zeros((40, 60, 3), np.uint8)
    image[:20, :30] = 255
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    plain = cv2.imencode(".jpg", image)[1].tobytes()
    tag = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    found = video.decode(clips.data("photo.jpg", plain[:2] + tag + plain[2:]))
    assert (found.video.width, found.video.height) == (40, 60)
    assert np.abs(found.rgb[0].astype(int) - np.rot90(image, -1)).mean() < 4


def test_rotation_holds_when_scaled(clips):
    path = clips.video(frames=clips.grey(2, 64, 48), rotation=90)
    assert video.decode(path, frames=2, max_side=32).rgb.shape == (2, 32, 24, 3)


def test_odd_sizes(clips):
    frames = clips.grey(4, 35, 21)
    path = clips.video("odd.mkv", frames=frames, codec="ffv1", pixels="yuv444p")
    found = video.decode(path, frames=4)
    assert found.rgb.shape == (4, 21, 35, 3)
    np.testing.assert_allclose(levels(found), [clips.level(i) for i in range(4)], atol=3)


def test_one_pixel(clips):
    path = clips.video("dot.mkv", frames=clips.grey(3, 1, 1), codec="ffv1", pixels="yuv444p")
    assert video.decode(path, frames=3).rgb.shape == (3, 1, 1, 3)
    assert video.decode(clips.image("dot.png", 1, 1)).rgb.shape == (1, 1, 1, 3)


def test_8k_is_scaled_while_it_is_converted(clips, monkeypatch):
    path, made = clips.image("8k.jpg", 7680, 4320), []

    class Watched:
        def __init__(self):
            self.inner = VideoReformatter()

        def reformat(self, *args, **kwargs):
            made.append((kwargs["width"], kwargs["height"]))
            return self.inner.reformat(*args, **kwargs)

    monkeypatch.setattr(video, "VideoReformatter", Watched)
    found = video.decode(path, max_side=512)
    assert found.rgb.shape == (1, 288, 512, 3) and made == [(512, 288)]
    assert (found.video.width, found.video.height) == (7680, 4320)
    np.testing.assert_allclose(found.rgb.mean((0, 1, 2)), [255, 0, 0], atol=3)


def test_a_small_video_is_not_enlarged(clips):
    assert video.decode(clips.video(), frames=2, max_side=512).rgb.shape == (2, 48, 64, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp"])
def test_an_image_is_a_video_of_one_frame(clips, suffix):
    found = video.decode(clips.image(f"image.{suffix}"), frames=16)
    assert found.rgb.shape == (1, 48, 64, 3) and found.repeated == 0
    assert (found.video.fps, found.video.duration) == (0, 0)
    np.testing.assert_allclose(found.rgb[0].mean((0, 1)), [255, 0, 0], atol=3)


def test_names_are_no_patterns(clips):
    for index in range(2):
        clips.image(f"shot{index}.png")
    found = video.decode(clips.image("shot%d.png", 32, 32))
    assert found.rgb.shape == (1, 32, 32, 3)


def test_one_frame(clips):
    found = video.decode(clips.video(frames=1), frames=1)
    assert found.indices.tolist() == [0] and found.repeated == 0


def test_a_short_video_repeats_its_last_frame_and_says_so(clips):
    found = video.decode(clips.video(frames=3), frames=16)
    assert found.indices.tolist() == [0, 1] + [2] * 14
    assert found.repeated == 13
    np.testing.assert_array_equal(found.rgb[2], found.rgb[15])
    assert (np.diff(found.times) >= 0).all()


def test_damage_in_the_middle_does_not_stop_the_decode(clips):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    path = clips.video("damaged.mkv", frames=noise)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    found = video.decode(clips.data("damaged.mkv", bytes(content)), frames=8)
    assert found.rgb.shape == (8, 48, 64, 3)
    assert found.times[-1] > 3.0


@pytest.fixture
def damaged(clips):
    """40 frames at 10 a second, of which a quarter of the bytes is overwritten from 1.2 s on."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    content = bytearray(clips.video("damaged.mp4", frames=noise, g="10").read_bytes())
    first, size = int(0.4 * len(content)), len(content) // 4
    content[first : first + size] = np.random.default_rng(1).bytes(size)
    return clips.data("damaged.mp4", bytes(content))


def test_damage_is_counted(clips, damaged):
    with av.open(str(damaged)) as container:
        frames = [frame for packet in container.demux(video=0) for frame in _decoded(packet)]
    lost = 40 - len(frames)
    assert lost > 3
    assert lost <= video.decode(damaged, frames=8).damaged <= 20
    assert video.decode(clips.video("sound.mp4", frames=40), frames=8).damaged == 0


def _decoded(packet: av.Packet) -> list[av.VideoFrame]:
    try:
        return list(packet.decode())
    except av.FFmpegError:
        return []


def test_damage_outside_the_span_is_none_of_it(damaged):
    assert video.decode(damaged, frames=4, end=1.0).damaged == 0
    assert video.decode(damaged, frames=4, start=3.2).damaged == 0
    assert video.decode(damaged, frames=4, start=1.0, end=3.0).damaged > 0


def test_frames_that_are_decoded_in_part_are_damaged(clips):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), np.uint8)
    content = bytearray(clips.video("smeared.mp4", frames=noise).read_bytes())
    middle = int(0.6 * len(content))
    content[middle : middle + 400] = np.random.default_rng(1).bytes(400)
    found = video.decode(clips.data("smeared.mp4", bytes(content)), frames=40)
    assert len(np.unique(found.indices)) == 40  # all came
    assert found.damaged == 1


def message(path: Path, **options) -> str:
    with pytest.raises(VideoError) as caught:
        video.decode(path, **options)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def test_missing(clips):
    assert "does not exist; correct the path" in message(clips.root / "none.mp4")


def test_a_folder(clips):
    assert "is a folder; name a video file" in message(clips.root)


def test_empty(clips):
    assert "is empty (0 bytes)" in message(clips.data("empty.mp4", b""))


def test_text_renamed_to_mp4(clips):
    assert "holds text, not video" in message(clips.data("text.mp4", "größer\n".encode() * 900))


def test_a_playlist_opens_no_other_file(clips):
    clips.video("target.mp4")
    content = b"#EXTM3U\n#EXTINF:2,\ntarget.mp4\n#EXT-X-ENDLIST\n"
    assert "holds text" in message(clips.data("list.m3u8", content))


def test_unknown_format(clips):
    content = np.random.default_rng(0).bytes(5000)
    assert "is no video that FFmpeg knows" in message(clips.data("noise.mp4", content))


@pytest.mark.parametrize("name", ["last.mp4", "first.mp4", "clip.avi", "clip.mkv", "clip.webm"])
def test_truncated(clips, name):
    """An MP4 has its index last or first; AVI and Matroska say how long they are."""
    options = {"movflags": "faststart"} if name == "first.mp4" else {}
    codec = {"avi": "mpeg4", "webm": "libvpx-vp9"}.get(name.split(".")[-1], "libx264")
    noise = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), np.uint8)
    path = clips.video(name, frames=noise, codec=codec, **options)
    assert video.decode(path, frames=4).repeated == 0
    content = path.read_bytes()
    text = message(clips.data(f"cut_{name}", content[: len(content) * 6 // 10]))
    assert "is truncated" in text and "copy or download it again" in text


def test_an_avi_written_to_a_pipe_is_not_truncated(clips):
    """Its header says 0xFFFFFFFF bytes, as its length was not known then."""
    content = bytearray(clips.video("clip.avi", codec="mpeg4").read_bytes())
    content[4:8] = b"\xff" * 4
    assert len(video.decode(clips.data("pipe.avi", bytes(content)), frames=4).rgb) == 4


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp"])
def test_truncated_images_are_no_images(clips, name):
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)
    content = cv2.imencode(Path(name).suffix, noise)[1].tobytes()
    path = clips.data(name, content[: len(content) // 20])
    assert re.search("no frame could be decoded|is truncated|is no video", message(path))


def test_audio_only(clips):
    assert "has no video stream (only audio)" in message(clips.audio())


def test_no_frame_can_be_decoded(clips, monkeypatch):
    path = clips.video()
    monkeypatch.setattr(video._Source, "_frames", lambda self, found: iter(()))
    assert "no frame could be decoded (codec h264)" in message(path)


def test_no_permission(clips, monkeypatch):
    path = clips.video()

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    assert "may not be read (no permission); allow it with chmod +r" in message(path)


def test_no_permission_on_disk(clips):
    path = clips.video()
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # root may read every file
            os.seteuid(65534)
        assert "may not be read (no permission)" in message(path)
    finally:
        os.seteuid(user)


def test_start_beyond_the_end(clips):
    path = clips.video(frames=20, fps=10)
    assert "start 5.0 s is beyond its end at 2.00 s" in message(path, start=5.0)
    assert "span 1.0..1.0 s is empty" in message(path, start=1.0, end=1.0)
    assert video.decode(path, start=1.95, frames=1).indices.tolist() == [0]


@pytest.mark.parametrize(
    ("span", "reason"),
    [
        ({"end": 0.0}, "its end 0.0 s is not after the first frame"),
        ({"end": -1.0}, "its end -1.0 s is not after the first frame"),
        ({"start": float("nan")}, "the span nan..None s is not finite"),
        ({"start": float("-inf")}, "the span -inf..None s is not finite"),
        ({"start": 0.0, "end": float("inf")}, "the span 0.0..inf s is not finite"),
        ({"end": float("nan")}, "the span None..nan s is not finite"),
    ],
)
def test_spans_that_are_none(clips, span, reason):
    assert reason in message(clips.video(), **span)


@pytest.mark.parametrize("options", [{"frames": 0}, {"max_side": 0}])
def test_impossible_settings(clips, options):
    with pytest.raises(ValueError, match="must be at least 1"):
        video.decode(clips.video(), **options)


def test_errors_travel_between_processes():
    error = pickle.loads(pickle.dumps(VideoError("a.mp4", "is empty", "copy it again")))
    assert (str(error), error.reason) == ("a.mp4: is empty; copy it again", "is empty")


def test_real_clips_in_odd_formats():
    root = os.environ.get("TRAJVIT_TEST_DATA")
    if not root or not (Path(root) / "assorted").is_dir():
        pytest.skip("TRAJVIT_TEST_DATA does not name a folder with assorted/")
    paths = sorted((Path(root) / "assorted").iterdir())
    assert paths
    for path in paths:
        found = video.decode(path, max_side=128)
        assert found.rgb.shape[0] == 16 and found.repeated == 0, path
        assert (np.diff(found.indices) > 0).all() and (np.diff(found.times) > 0).all(), path
