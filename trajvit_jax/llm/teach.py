r"""Teaches a language model to see: trains a VideoLLM on conversations, or goes on with it.

Example:
  python -m trajvit_jax.llm.teach --workdir=runs/llama3 \
      --config=configs/videollm/llama3_8b.py:video=runs/panda8m,llm=Meta-Llama-3-8B-Instruct

The workdir holds what that of `python -m trajvit_jax.main` holds; its checkpoints have what is
trained alone (of Llama-3-8B the connector: 4 million numbers beside 8 billion). Config arguments,
--config.NAME=VALUE, signals and exit codes are as there, too; --only_check_args reads the
conversations, joins them with their records where both are on this machine, and ends. Then ask
what it has learned:
  python -m trajvit_jax.llm.chat --model=runs/llama3 --video=clip.mp4
"""

from __future__ import annotations

from typing import Any

from trajvit_jax.main import Program, run, tell_checked


def _video_llm() -> Any:
    from trajvit_jax.llm.experiment import VideoLLMExperiment
    from trajvit_jax.llm.train import train

    return VideoLLMExperiment, train


def _check(config: Any) -> None:
    """What `llm.checks` finds without starting."""
    from trajvit_jax.config import to_settings
    from trajvit_jax.llm.checks import check_here
    from trajvit_jax.llm.experiment import VideoLLMExperiment

    tell_checked(check_here(to_settings(VideoLLMExperiment, config)))


if __name__ == "__main__":
    run(Program(__doc__, _video_llm, _check))
