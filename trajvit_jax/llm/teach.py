r"""Teaches a language model to see: trains a VideoLLM on conversations, or goes on with it.

Example:
  python -m trajvit_jax.llm.teach --workdir=runs/llama3 \
      --config=configs/videollm/llama3_8b.py:video=runs/panda8m,llm=Meta-Llama-3-8B-Instruct

The workdir holds what that of `python -m trajvit_jax.main` holds; its checkpoints have what is
trained alone (of Llama-3-8B the connector: 4 million numbers beside 8 billion). Config arguments,
--config.NAME=VALUE, signals and exit codes are as there, too. Then ask what it has learned:
  python -m trajvit_jax.llm.chat --model=runs/llama3 --video=clip.mp4
"""

from __future__ import annotations

from typing import Any

from trajvit_jax.main import Program, run


def _video_llm() -> Any:
    from trajvit_jax.llm.experiment import VideoLLMExperiment
    from trajvit_jax.llm.train import train

    return VideoLLMExperiment, train


if __name__ == "__main__":
    run(Program(__doc__, _video_llm))
