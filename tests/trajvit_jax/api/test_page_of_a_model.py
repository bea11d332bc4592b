"""The page of tokens cuts a file as the records of the model that it is given were cut."""

from __future__ import annotations

import numpy as np
import pytest

from tokenization.records import to_json
from trajvit_jax.api import load
from trajvit_jax.demo import token_options, tokens
from trajvit_jax.experiment import TOKENIZATION

# Squares that go on through all frames: nothing that the built-in settings make.
SQUARES = {
    "record_size": 48,
    "pipeline": {"frames": 4, "max_side": 64, "segmenter": "patches", "tracker": "patches"},
}


@pytest.mark.parametrize("name", ["trajvit", "vit3d"])
def test_a_file_is_cut_as_the_model_s_records(name, write_weights, tmp_path, clips):
    folder = write_weights(tmp_path / name, name)
    (folder / TOKENIZATION).write_text(to_json(SQUARES))
    arguments = [str(clips[0]), f"--weights={folder}"]
    [shown] = tokens.items(token_options.parse(None, arguments))
    made = load(folder).encode(clips[0])
    found = shown.trajectories.labels
    scale = np.array(found.shape) // made.labels.shape
    np.testing.assert_array_equal(found, np.kron(made.labels, np.ones(scale, np.int32)))
    assert len(shown.trajectories) > 4 and shown.frames.shape[1:] == (32, 32, 3)
