"""Answers of a VideoLLM that several virtual devices share.

  python answers_on_devices.py FOLDER VIDEO DEVICES [DEVICES ...]

Prints a JSON object: answers to a question about the video by so many devices, and how many bytes
of the language model the first of them holds.
"""

from __future__ import annotations

import json
import sys

import jax
from flax import nnx

from trajvit_jax.llm import videollm
from trajvit_jax.llm.answering import AnswerSettings, Question

_SHORT = AnswerSettings(most_tokens=6)


def held(model: nnx.Module) -> int:
    """Bytes of it on the first device."""
    first, arrays = jax.devices()[0], jax.tree.leaves(nnx.state(model))
    shards = (shard for array in arrays for shard in array.addressable_shards)
    return sum(shard.data.nbytes for shard in shards if shard.device == first)


def main() -> None:
    """See above."""
    folder, video, *counts = sys.argv[1:]
    answers, sizes = [], []
    for count in map(int, counts):
        model = videollm.load(folder, devices=count)
        answers.append(model.answer_all([Question("What is it?", (video,))], _SHORT))
        sizes.append(held(model._saved.model.llm))
    print(json.dumps({"answers": answers, "bytes": sizes}))


if __name__ == "__main__":
    main()
