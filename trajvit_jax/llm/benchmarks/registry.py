"""The benchmarks by name."""

from __future__ import annotations

import dataclasses
import functools

from trajvit_jax.config import nearest
from trajvit_jax.llm.benchmarks import tempcompass
from trajvit_jax.llm.benchmarks.activitynet_qa import ACTIVITYNET_QA
from trajvit_jax.llm.benchmarks.contract import Benchmark
from trajvit_jax.llm.benchmarks.mlvu import MLVU, MLVU_GENERATION
from trajvit_jax.llm.benchmarks.moviechat import MOVIECHAT_BREAKPOINT, MOVIECHAT_GLOBAL
from trajvit_jax.llm.benchmarks.nextqa import NEXTQA_CHOICES, NEXTQA_OPEN, open_marks
from trajvit_jax.llm.benchmarks.video_mme import VIDEO_MME
from trajvit_jax.llm.benchmarks.wordnet import WordNet

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        VIDEO_MME,
        NEXTQA_CHOICES,
        NEXTQA_OPEN,
        ACTIVITYNET_QA,
        MLVU,
        MLVU_GENERATION,
        tempcompass.MULTI_CHOICE,
        tempcompass.YES_NO,
        tempcompass.CAPTION_MATCHING,
        tempcompass.CAPTIONING,
        MOVIECHAT_GLOBAL,
        MOVIECHAT_BREAKPOINT,
    )
}


def find(name: str, *, wordnet: WordNet | None = None) -> Benchmark:
    """A benchmark; with a WordNet, `nextqa_oe` has WUPS.

    Raises:
      ValueError: an unknown name.
    """
    if name not in BENCHMARKS:
        raise ValueError(
            f"there is no benchmark {name!r} ({nearest(name, BENCHMARKS)}); known: "
            f"{', '.join(BENCHMARKS)}"
        )
    benchmark = BENCHMARKS[name]
    if benchmark is NEXTQA_OPEN and wordnet is not None:
        marks = functools.partial(open_marks, wordnet=wordnet)
        return dataclasses.replace(benchmark, marks=marks)
    return benchmark
