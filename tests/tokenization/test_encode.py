"""Frames written to a video and read back."""

from __future__ import annotations

import av
import numpy as np
import pytest

from tokenization.encode import write_video


@pytest.mark.parametrize(("height", "width", "format"), [(32, 48, "yuv420p"), (33, 48, "yuv444p")])
def test_a_video_has_the_frames_and_always_the_same_bytes(tmp_path, height, width, format):
    frames = np.zeros((6, height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:, 8 * number :] = 40 * number
    for name in ("one.mp4", "other.mp4"):
        write_video(tmp_path / name, frames, fps=5, crf=16)
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "other.mp4").read_bytes()
    with av.open(str(tmp_path / "one.mp4")) as container:
        [stream] = container.streams
        assert stream.average_rate == 5 and stream.pix_fmt == format
        read = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 3


def test_nothing_is_looked_ahead_to(tmp_path):
    """With its lookahead, x264 gives other bytes now and then; the file tells its settings."""
    write_video(tmp_path / "one.mp4", np.zeros((2, 32, 32, 3), np.uint8), fps=5, crf=16)
    settings = (tmp_path / "one.mp4").read_bytes()
    assert b" threads=1 " in settings and b"mbtree=0" in settings
    assert b"rc_lookahead" not in settings  # only others than 0 are noted
