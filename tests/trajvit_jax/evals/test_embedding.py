"""What an evaluation embeds, whatever else is in its batch."""

from __future__ import annotations

import numpy as np

from trajvit_jax.evals.embedding import Embedder
from trajvit_jax.models.settings import RLTSettings


def test_a_video_has_all_of_its_tokens_whoever_shares_its_row_in_training(
    tiny, random_model, toy_record
):
    cells, first = 4, toy_record(0)
    crowded = tiny("rlt", rlt=RLTSettings(threshold=0.0, group=2, slots=2 * (1 + cells) + 1))
    alone = tiny("rlt", rlt=RLTSettings(threshold=0.0))
    bounded, free = random_model(crowded), random_model(alone)
    embedded = [
        Embedder(model, batch=2).videos([first, other]).vectors[0]
        for model in (bounded, free)
        for other in (toy_record(5), toy_record(9))
    ]
    for other in embedded[1:]:
        np.testing.assert_array_equal(other, embedded[0])
