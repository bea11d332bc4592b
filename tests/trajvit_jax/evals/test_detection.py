"""What annotated and given boxes count for, without a model."""

from __future__ import annotations

import numpy as np
import pytest

from trajvit_jax.evals.boxes import BoxedFrame
from trajvit_jax.evals.detection import BoxedFeatures
from trajvit_jax.evals.settings import DetectionSettings
from trajvit_jax.evals.token_store import Features

LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)


def test_rows_of_several_people_in_one_box_are_several_true_boxes():
    corners = np.array([LEFT, RIGHT], np.float32)
    labels = (frozenset({"walk", "talk"}), frozenset({"sit"}))
    crowded = BoxedFrame("a", "film", 1.0, 0, corners, labels, again=((0, "walk"), (0, "walk")))
    plain = BoxedFrame("b", "film", 2.0, 0, corners, labels)
    features = BoxedFeatures(
        (crowded, plain),
        np.array([0, 0, 1, 1]),
        np.concatenate([corners, corners]),
        np.array([0, 1, 0, 1]),
        Features(np.zeros((4, 2), np.float32), np.arange(5)),
    )
    truth = features.truth(["walk", "talk", "sit"])
    assert truth.frame.tolist() == [0, 0, 0, 0, 1, 1]
    assert truth.corners.tolist() == [list(box) for box in (LEFT, RIGHT, LEFT, LEFT, LEFT, RIGHT)]
    assert truth.classes.sum(0).tolist() == [4, 2, 2]
    assert features.classes(["walk"]).tolist() == [[True], [False]] * 2  # of what is learned


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="--most-pairs=-1 must be at least 0, which is all"):
        DetectionSettings(most_pairs=-1)
