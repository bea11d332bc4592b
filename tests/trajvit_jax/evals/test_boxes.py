"""Annotated boxes of records, and files of given ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tokenization.records import Boxes, Record
from tokenization.trajectories import Trajectories, VideoInfo
from trajvit_jax.evals.boxes import BoxedFrame, boxed_frames, read_given

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def record(*rows):
    trajectories = Trajectories(
        np.ones((2, 8, 8), np.uint16),
        np.arange(2, dtype=np.float32),
        np.array([True, False]),
        VideoInfo("a", 8, 8, 1.0, 2.0),
    )
    boxes = Boxes(
        np.array([corners for corners, _ in rows], np.float32),
        np.ones(len(rows), np.float32),
        tuple(label for _, label in rows),
    )
    return Record(trajectories, np.zeros((2, 8, 8, 3), np.uint8), (), boxes=boxes)


def test_two_people_in_one_box_are_two_true_boxes():
    """As AVA's program counts rows; what the head learns of the box is what both do."""
    rows = [(LEFT, "walk"), (LEFT, "talk"), (RIGHT, "walk"), (LEFT, "walk")]
    [frame] = boxed_frames(record(*rows))
    assert frame.corners.tolist() == [list(LEFT), list(RIGHT)]
    assert frame.labels == (frozenset({"walk", "talk"}), frozenset({"walk"}))
    assert frame.again == ((0, "walk"),)
    values = json.loads(json.dumps(frame.to_json()))
    assert BoxedFrame.from_json(values).again == frame.again


def test_given_boxes_are_read_with_their_scores(tmp_path):
    path = tmp_path / "boxes.csv"
    row = "film,0902,0.1,0.1,0.5,1.0,,"
    path.write_text(f"{row}0.9\r\n{row}0.3\n")
    found = read_given(str(path), least=0.8)
    assert list(found) == [("film", 902.0)] and found["film", 902.0].scores.tolist() == [0.9]
    with pytest.raises(
        ValueError,
        match=r"no box with a score of 0\.95 or more, the highest is 0\.9; lower --box-score",
    ):
        read_given(str(path), least=0.95)
    path.write_text("")
    with pytest.raises(ValueError, match=r"boxes\.csv has no box: --boxes names a csv"):
        read_given(str(path), least=0.8)
    path.write_bytes(b"\xff\xfe,0902")
    with pytest.raises(ValueError, match=r"boxes\.csv is not UTF-8 .* --boxes names a csv"):
        read_given(str(path), least=0.8)
