"""What a language model costs by formula: FLOPs of reading, and memory of its cache.

A FLOP is a multiplication or an addition of a product of matrices; norms, softmax and lookups do
not count. `benchmarks/llm_costs.py` has XLA's count beside it.
"""

from __future__ import annotations

import dataclasses

from trajvit_jax.llm.experiment import VideoLLMExperiment
from trajvit_jax.llm.eyes import EyesSettings, slots_of
from trajvit_jax.llm.settings import LlamaSettings
from trajvit_jax.models.costs import cost_of
from trajvit_jax.models.settings import ModelSettings
from trajvit_jax.run.throughput import Work


def layer_flops(settings: LlamaSettings, tokens: int, seen: int) -> int:
    """One layer over so many tokens, each of which scores with `seen` tokens."""
    inner, own = settings.heads * settings.each_head, settings.key_heads * settings.each_head
    maps = 2 * settings.width * (2 * inner + 2 * own) + 6 * settings.width * settings.mlp
    return tokens * (maps + 4 * inner * seen)


def prefill_flops(settings: LlamaSettings, tokens: int) -> int:
    """Reading a prompt and telling one token. Scores are computed for all pairs of tokens."""
    head = 2 * settings.width * settings.vocabulary
    return settings.depth * layer_flops(settings, tokens, tokens) + head


def cache_bytes(settings: LlamaSettings, tokens: int) -> int:
    """Keys and values of one sequence, in the dtype in which layers compute."""
    number = 2 if settings.dtype == "bfloat16" else 4
    each = settings.key_heads * settings.each_head
    return 2 * settings.depth * tokens * each * number


def eyes_flops(video: ModelSettings, eyes: EyesSettings) -> int:
    """Reading a video with the layers that the eyes have; its tokenizer, where that is known."""
    encoder = dataclasses.replace(video.encoder, depth=video.encoder.depth - eyes.skip)
    cost = cost_of(dataclasses.replace(video, encoder=encoder))
    return cost.transformer if cost.total is None else cost.total


def work_of(settings: VideoLLMExperiment) -> Work:
    """What a training step does, on all devices together.

    The gradient of a product is two products, of which what is not trained needs one.
    """
    rows = settings.rows
    groups = settings.data.batch // rows.group
    tokens = groups * rows.rows * rows.length
    read = settings.llm.depth * layer_flops(settings.llm, tokens, rows.length)
    read += 2 * settings.llm.width * settings.llm.vocabulary * tokens  # the head, of all places
    videos = groups * rows.places
    seen = videos * eyes_flops(settings.model, settings.eyes)
    flops = read * (3 if "llm" in settings.train else 2)
    flops += seen * (3 if "eyes" in settings.train else 1)
    slots = videos * slots_of(settings.model)
    return Work(settings.data.batch, max(tokens, slots), float(flops))
